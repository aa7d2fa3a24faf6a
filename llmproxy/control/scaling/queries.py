"""Outside queries (PromQL) as signals: asked now and then, and unknown again when their last answer is too old."""

import asyncio
import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from llmproxy.control.tasks import end_tasks
from llmproxy.core.clock import Clock

EVERY_S: Final = 15.0
TIMEOUT_S: Final = 5.0
MAX_AGE_S: Final = 60.0
_ANSWER_MAX_BYTES: Final = 1024**2
_ERROR_MAX_CHARS: Final = 300

_log = logging.getLogger("llmproxy.control.scaling")


@dataclass(frozen=True, slots=True)
class Query:
    """`url` is Prometheus' own, without `/api/v1/query`."""

    url: str
    query: str
    token: str = ""


class Queries:
    """One pool's, by name."""

    def __init__(self, queries: Mapping[str, Query], clock: Clock) -> None:
        self._queries = queries
        self._clock = clock
        self._found: dict[str, tuple[float, float]] = {}
        self._failing: dict[str, str] = {}
        """Those without an answer, with what was last said of each."""
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def start(self) -> None:
        if self._queries and self._task is None:
            self._task = asyncio.create_task(self._run(), name="scaling queries")

    def change(self, queries: Mapping[str, Query]) -> None:
        """Others from now on; what is asked as before keeps its answer."""
        before, self._queries = self._queries, queries
        for name in [name for name in before if queries.get(name) != before[name]]:
            self._found.pop(name, None)
            self._failing.pop(name, None)
        self._changed.set()
        self.start()

    async def stop(self) -> None:
        task, self._task = self._task, None
        await end_tasks(task)

    def answers(self, now: float) -> list[tuple[str, float]]:
        """What is known at `now`."""
        return [(name, value) for name, (value, at) in self._found.items() if now - at <= MAX_AGE_S]

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            while True:
                self._changed.clear()
                await asyncio.gather(*(self._ask(session, name, query) for name, query in self._queries.items()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._changed.wait()

    async def _ask(self, session: aiohttp.ClientSession, name: str, query: Query) -> None:
        headers = {"Authorization": f"Bearer {query.token}"} if query.token else {}
        url = f"{query.url.rstrip('/')}/api/v1/query"
        try:
            async with session.get(url, params={"query": query.query}, headers=headers) as answer:
                body = await _whole(answer)
                if answer.status != 200:
                    raise ValueError(f"status {answer.status}{_said(body)}")
            value = value_in(json.loads(body))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, OverflowError, RecursionError) as error:
            what = str(error) or type(error).__name__
            if self._queries.get(name) == query and self._failing.get(name) != what:
                self._failing[name] = what
                _log.warning("scaling query %s: %s", name, what)
            return
        if self._queries.get(name) != query:
            return  # a reload came in between
        if self._failing.pop(name, None) is not None:
            _log.info("scaling query %s is answered again", name)
        self._found[name] = value, self._clock()


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body; ValueError for one that is longer than any number."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > _ANSWER_MAX_BYTES:
            raise ValueError("the answer is too long: aggregate it, with sum() or max()")
    return bytes(body)


def _said(body: bytes) -> str:
    """What Prometheus says is wrong with the query."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return f": {str(error)[:_ERROR_MAX_CHARS]}"


def value_in(answer: Any) -> float:
    """The one number in an answer of Prometheus' query API. ValueError when it is not one."""
    try:
        data = answer["data"]
        result = data["result"]
        if data["resultType"] == "scalar":
            value = float(result[1])
        elif not result:
            raise ValueError("no series: nothing matches it now")
        elif len(result) != 1:
            raise ValueError(f"{len(result)} series, not one: aggregate them, with sum() or max()")
        else:
            value = float(result[0]["value"][1])
    except (KeyError, TypeError, IndexError):
        raise ValueError("not an answer of Prometheus' query API") from None
    if not math.isfinite(value):
        raise ValueError(f"the answer is {value}")
    return value
