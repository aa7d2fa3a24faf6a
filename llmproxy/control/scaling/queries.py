"""Outside queries (PromQL) as signals: asked now and then, and unknown again when their last answer is too old."""

import asyncio
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from llmproxy.control.tasks import end_tasks
from llmproxy.core.clock import Clock

EVERY_S: Final = 15.0
TIMEOUT_S: Final = 5.0
MAX_AGE_S: Final = 60.0
_ANSWER_MAX_BYTES: Final = 1024**2

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
        self._failing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._queries and self._task is None:
            self._task = asyncio.create_task(self._run(), name="scaling queries")

    async def stop(self) -> None:
        task, self._task = self._task, None
        await end_tasks(task)

    def answers(self, now: float) -> list[tuple[str, float]]:
        """What is known at `now`."""
        return [(name, value) for name, (value, at) in self._found.items() if now - at <= MAX_AGE_S]

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            while True:
                await asyncio.gather(*(self._ask(session, name, query) for name, query in self._queries.items()))
                await asyncio.sleep(EVERY_S)

    async def _ask(self, session: aiohttp.ClientSession, name: str, query: Query) -> None:
        headers = {"Authorization": f"Bearer {query.token}"} if query.token else {}
        url = f"{query.url.rstrip('/')}/api/v1/query"
        try:
            async with session.get(url, params={"query": query.query}, headers=headers) as answer:
                if answer.status != 200:
                    raise ValueError(f"status {answer.status}")
                body = await answer.content.read(_ANSWER_MAX_BYTES)
            value = value_in(json.loads(body))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if name not in self._failing:
                self._failing.add(name)
                _log.warning("scaling query %s: %s", name, error or type(error).__name__)
            return
        if name in self._failing:
            self._failing.discard(name)
            _log.info("scaling query %s is answered again", name)
        self._found[name] = value, self._clock()


def value_in(answer: Any) -> float:
    """The one number in an answer of Prometheus' query API. ValueError when it is not one."""
    try:
        data = answer["data"]
        result = data["result"]
        if data["resultType"] == "scalar":
            value = float(result[1])
        elif len(result) != 1:
            raise ValueError(f"{len(result)} series, not one: aggregate them, with sum() or max()")
        else:
            value = float(result[0]["value"][1])
    except (KeyError, TypeError, IndexError):
        raise ValueError("not an answer of Prometheus' query API") from None
    if not math.isfinite(value):
        raise ValueError(f"the answer is {value}")
    return value
