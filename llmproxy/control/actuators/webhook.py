"""`{kind: webhook}`: somebody else's program makes replicas come and go; it is told over HTTP how many.

    POST URL      {"version": 1, "id": "...", "action": "scale", "pool": "llama", "replicas": 3,
                   "leaving": ["llama-1"], "fence": 17, "sent_at": 1790000000.0}
    answer 2xx    {"replicas": [{"id": "llama-1", "url": "http://10.0.0.5:8000", "stopping": false, "age_s": 12.5}]}

Those in `leaving` have been drained or given up: they go in any case, and then there should be `replicas`. `action` is
`scale`, or `status`, which asks for the same answer and carries no number. The answer lists what there is now, not
what there will be; `url` may be left out while it is not known, `stopping` and `age_s` always. A repeated message has
the same `id`: it is one, not two. `fence` never goes down: who has seen a higher one answers 409, and the leader that
was one gives up. Every message is signed (`signing.py`).

Where the pool has tiers of capacity, `tiers` says how many of each (`{"small": 2, "big": 1}`, which is `replicas` in
all), and each replica in the answer has its `tier`. A receiver that knows at once that it cannot get one (an empty spot
market) may name the tier in `unavailable`, a list: others are asked for instead. Where it does not know, that none of
the tier is listed within a minute and a half says the same.
"""

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from pydantic import ValidationError

from llmproxy.config.backend import BackendConfig
from llmproxy.control.actuators import signing
from llmproxy.control.actuators.base import ActuatorError, Instance, TiersFailed

VERSION: Final = 1
ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.5
_ANSWER_MAX_BYTES: Final = 1024**2
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TIER_MAX_CHARS: Final = 100
_AGE_MAX_S: Final = 1e10

_log = logging.getLogger("llmproxy.control.actuators")


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    url: str
    secret: str
    timeout_s: float = 10.0


class StaleLeader(ActuatorError):
    """Somebody with a higher fence leads by now."""


class WebhookActuator:
    """Asks and tells a receiver. A call is tried `ATTEMPTS` times, unless it was refused (4xx). `paused` is asked
    before a change is told again: the operator may have paused because of this very receiver."""

    def __init__(
        self,
        pool: str,
        options: WebhookOptions,
        *,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool = pool
        self._options = options
        self._wall = wall
        self._sleep = sleep
        self._paused = paused
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._options.timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())

    async def stop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def replicas(self) -> Sequence[Instance]:
        return _instances(await self._send({"action": "status"}))

    async def scale(
        self, count: int, *, leaving: Sequence[str] = (), fence: int = 0, tiers: Mapping[str, int] | None = None
    ) -> None:
        message: dict[str, Any] = {"action": "scale", "replicas": count, "leaving": list(leaving), "fence": fence}
        if tiers is None:
            await self._send(message)
            return
        answer = await self._send({**message, "tiers": dict(tiers)})
        named = answer.get("unavailable") if isinstance(answer, dict) else None
        failed = [tier for tier in tiers if tier in named] if isinstance(named, list) else []
        if failed:
            raise TiersFailed("the receiver says so", failed)

    async def _send(self, message: dict[str, Any]) -> Any:
        await self.start()
        message = {"version": VERSION, "id": secrets.token_hex(8), "pool": self._pool, **message}
        failure = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._sleep(_PAUSE_S * 2 ** (attempt - 1))
                if message["action"] == "scale" and self._paused():
                    break
            try:
                status, body = await self._post(message)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = str(error) or type(error).__name__
                continue
            if status == 409:
                raise StaleLeader("the receiver has heard from a newer leader")
            if 200 <= status < 300:
                return _read(body)
            failure = f"status {status}"
            if status < 500 and status not in (408, 429):
                break
        raise ActuatorError(f"{message['action']}: {failure}")

    async def _post(self, message: dict[str, Any]) -> tuple[int, bytes]:
        assert self._session is not None
        now = self._wall()
        told = json.dumps({**message, "sent_at": now}).encode()
        headers = signing.headers(self._options.secret, told, now) | {"Content-Type": "application/json"}
        async with self._session.post(self._options.url, data=told, headers=headers, allow_redirects=False) as answer:
            if answer.status >= 300:
                return answer.status, b""
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _ANSWER_MAX_BYTES:
                    raise ActuatorError("the answer is too long")
            return answer.status, bytes(body)


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ActuatorError("the answer is no JSON") from None


def _instances(answer: Any) -> list[Instance]:
    """What the answer lists. An entry that is no instance makes all of it unfit: half a list is worse than none."""
    rows = answer.get("replicas") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise ActuatorError("the answer has no list `replicas`")
    found = [_instance(row) for row in rows]
    if len({one.id for one in found}) < len(found):
        raise ActuatorError("the answer lists an id twice")
    return found


def _instance(row: Any) -> Instance:
    fields = row if isinstance(row, dict) else {}
    id, url = fields.get("id"), fields.get("url", "")
    age_s: Any = fields.get("age_s", 0.0)
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise ActuatorError(f"the answer has a replica with the id {str(id)[:80]!r}")
    if not isinstance(url, str) or len(url) > 500:
        raise ActuatorError(f"replica {id} has an unusable url")
    if url:
        _check_url(id, url)
    if not isinstance(age_s, (int, float)) or isinstance(age_s, bool) or not abs(age_s) <= _AGE_MAX_S:
        raise ActuatorError(f"replica {id} has an unusable age_s")
    tier = fields.get("tier", "")
    if not isinstance(tier, str) or len(tier) > _TIER_MAX_CHARS:
        raise ActuatorError(f"replica {id} has an unusable tier")
    return Instance(id, url.rstrip("/"), fields.get("stopping") is True, float(age_s), tier)


def _check_url(id: str, url: str) -> None:
    """Whether a backend may have it: found out here, where whose answer it is can be said."""
    try:
        BackendConfig(url=url)
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ActuatorError(f"replica {id} has an unusable url: {what}") from None
