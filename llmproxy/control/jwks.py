"""Keeps an issuer's public keys at hand, so that no request waits for the issuer.

They are fetched at start and every `refresh_s`; sooner, within `SOON_S`, when a token came whose key is not known (the
issuer has a new one); and with growing pauses while they cannot be had. Those that were fetched stay good meanwhile.
Without a URL for them, the issuer's discovery document says it (OpenID Connect Discovery 1.0, section 4).
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp

from llmproxy.control.tasks import end_tasks

BODY_MAX_BYTES = 1 << 20
TIMEOUT_S = 10.0
SOON_S = 10.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
_DISCOVERY = "/.well-known/openid-configuration"

_log = logging.getLogger("llmproxy.control.jwks")


class JwksSource(Protocol):
    """From where keys come: their text, as the issuer publishes it. Raises OSError, ValueError or TimeoutError."""

    async def __call__(self) -> bytes: ...


class JwksRefresher:
    """`take` is given the text and raises ValueError when it is no good; `lost` is told when it could not be had."""

    def __init__(
        self,
        fetch: JwksSource,
        *,
        take: Callable[[bytes], None],
        lost: Callable[[], None],
        refresh_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._fetch = fetch
        self._take = take
        self._lost = lost
        self._refresh_s = refresh_s
        self._sleep = sleep
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.tried = asyncio.Event()
        """Set when the issuer was asked the first time, whatever came of it."""

    def start(self) -> None:
        """Begin to fetch."""
        self._task = asyncio.create_task(self._run(), name="jwks")

    async def stop(self) -> None:
        """End."""
        task, self._task = self._task, None
        await end_tasks(task)

    def want(self) -> None:
        """A key is not known: fetch them again before long."""
        self._wanted.set()

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            self._wanted.clear()
            refreshed = await self._refresh()
            self.tried.set()
            if refreshed:
                pause_s = FIRST_PAUSE_S
                # However many unknown keys come, the issuer is asked no more often than this.
                await self._sleep(min(SOON_S, self._refresh_s))
                await self._until_wanted(max(self._refresh_s - SOON_S, 0.0))
            else:
                await self._sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _until_wanted(self, most_s: float) -> None:
        waiting = [asyncio.ensure_future(self._wanted.wait()), asyncio.ensure_future(self._sleep(most_s))]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    async def _refresh(self) -> bool:
        try:
            self._take(await self._fetch())
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            self._lost()
            _log.warning("the issuer's keys could not be fetched (%s); those known stay good", _reason(error))
            return False
        except Exception:
            self._lost()
            _log.exception("fetching the issuer's keys failed")
            return False
        return True


class HttpJwks:
    """Fetches from `url`, or, when that is empty, from where `issuer`'s discovery document says."""

    def __init__(self, issuer: str, url: str = "") -> None:
        self._issuer = issuer
        self._url = url

    async def __call__(self) -> bytes:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            url = self._url or await self._discover(session)
            return await _get(session, url)

    async def _discover(self, session: aiohttp.ClientSession) -> str:
        document = json.loads(await _get(session, self._issuer.rstrip("/") + _DISCOVERY))
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise ValueError("the discovery document is of another issuer")
        url = document.get("jwks_uri")
        schemes = ("https://", self._issuer.partition("://")[0] + "://")
        if not isinstance(url, str) or not url.startswith(schemes):
            raise ValueError("the discovery document names no usable jwks_uri")
        return url


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as answer:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        body = await answer.content.read(BODY_MAX_BYTES + 1)
        while len(body) <= BODY_MAX_BYTES and (more := await answer.content.read(BODY_MAX_BYTES + 1 - len(body))):
            body += more
        if len(body) > BODY_MAX_BYTES:
            raise ValueError("the answer is too large")
        return body


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else type(error).__name__
