"""Keeps the link to Redis: connects in the background, beats once a second, hears of other proxies and of overrides."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

import hiredis

from llmproxy.stores.redis_door import RedisDoor
from llmproxy.stores.redis_link import RedisLink
from llmproxy.stores.redis_trouble import in_words
from llmproxy.stores.script import BEAT, LIMITS

log = logging.getLogger("llmproxy")

OPEN_S = 1.0
_BEAT_S = 1.0
_ALIVE_MS = 5_000
_RETRY_S = (0.05, 0.1, 0.2, 0.25)
_FEWER_AFTER = 10
"""Beats that must see fewer proxies before they are believed: after an outage the others come back one by one."""
_REASONS_MAX = 10
"""What is said of one outage, at most."""
_TROUBLE = (OSError, TimeoutError, hiredis.HiredisError, ValueError)


class RedisKeeper:
    """`on_up` is given each link that is fast enough and can be written through; `on_beat` is called after each beat,
    and `on_trouble` with what went wrong with one. Whoever gives the link up calls `went`."""

    def __init__(
        self,
        door: RedisDoor,
        *,
        prefix: str,
        name: str,
        fast_s: float,
        rng: random.Random,
        on_up: Callable[[RedisLink], None],
        on_beat: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self.proxies = 1
        """How many share this Redis, as last seen."""
        self.skew_ms = 0.0
        """Redis's clock less the event loop's."""
        self.overrides: dict[str, str] = {}
        self.overrides_version = 0
        self._door = door
        self._prefix = prefix
        self._name = name
        self._fast_s = fast_s
        self._rng = rng
        self._on_up = on_up
        self._on_beat = on_beat
        self._on_trouble = on_trouble
        self._link: RedisLink | None = None
        self._went = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._remote_version = -1
        self._fewer = 0
        self._said: set[str] = set()

    async def start(self, patience_s: float) -> None:
        """Connect, which goes on in the background when it takes longer than `patience_s`."""
        came = asyncio.Event()
        self._task = asyncio.create_task(self._run(came), name="limits-redis")
        with suppress(TimeoutError):
            # Not wait_for, here and below: until Python 3.12 it forgets a cancellation that comes with the event.
            async with asyncio.timeout(patience_s):
                await came.wait()

    async def stop(self) -> None:
        """End, without touching the link."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def leave(self) -> None:
        """Say that this proxy is no more."""
        if self._link is not None:
            with suppress(*_TROUBLE):
                async with asyncio.timeout(0.25):
                    await self._link.ask("ZREM", self._prefix + "proxies", self._name)

    def went(self, why: str = "") -> None:
        """The link is given up. `why` is what Redis said, which may be where to go instead."""
        if why:
            self._door.redirected(hiredis.ReplyError(why))
        self._link = None
        self._went.set()

    async def set_override(self, tenant: str, text: str | None) -> None:
        """Raises ConnectionError."""
        link = self._link
        if link is None:
            raise ConnectionError("Redis is out of reach")
        key = self._prefix + "overrides"
        try:
            async with asyncio.timeout(OPEN_S):
                if text is None:
                    await link.ask("HDEL", key, tenant)
                else:
                    await link.ask("HSET", key, tenant, text)
                await link.ask("INCR", self._prefix + "overrides-version")
                await self._fetch_overrides(link)
        except (TimeoutError, hiredis.HiredisError) as error:
            raise ConnectionError(f"Redis did not take it: {str(error) or 'no answer in time'}") from None

    # -- the task --------------------------------------------------------------------------------------------------

    async def _run(self, came: asyncio.Event) -> None:
        failures = 0
        while True:
            if self._link is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BEAT_S):
                        await self._went.wait()
                    continue
                await self._tend(self._link)
                continue
            try:
                async with asyncio.timeout(OPEN_S):
                    link = await self._open()
            except _TROUBLE as error:
                if not self._door.redirected(error):
                    self._complain(error)
                    pause_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                    failures += 1
                    await asyncio.sleep(pause_s * self._rng.uniform(0.8, 1.2))
                continue
            failures = 0
            self._said.clear()
            self._link = link
            self._went.clear()
            self._on_up(link)
            came.set()

    def _complain(self, error: BaseException) -> None:
        """Of each reason once, until Redis is there."""
        reason = in_words(error)
        if reason not in self._said and len(self._said) < _REASONS_MAX:
            self._said.add(reason)
            log.warning("limits: cannot use Redis yet: %s", reason)

    async def _open(self) -> RedisLink:
        """A connection that is fast enough and that can be written through."""
        loop = asyncio.get_running_loop()
        link = await self._door.open()
        try:
            await link.ask("SCRIPT", "LOAD", LIMITS)
            await self._beat(link)
            begun = loop.time()
            await self._beat(link)
            if loop.time() - begun > self._fast_s:
                raise TimeoutError("it answers too slowly")
        except BaseException:
            link.abort()
            raise
        return link

    async def _tend(self, link: RedisLink) -> None:
        try:
            async with asyncio.timeout(_BEAT_S):
                await self._beat(link)
        except _TROUBLE as error:
            if link is self._link:
                self._on_trouble(str(error) or "timeout")
        else:
            if link is self._link:
                self._on_beat()

    async def _beat(self, link: RedisLink) -> None:
        prefix = self._prefix
        at_ms, alive, version = await link.ask(
            "EVAL", BEAT, 2, prefix + "proxies", prefix + "overrides-version", self._name, _ALIVE_MS
        )
        self.skew_ms = at_ms - asyncio.get_running_loop().time() * 1000
        self._fewer = self._fewer + 1 if alive < self.proxies else 0
        if alive > self.proxies or self._fewer > _FEWER_AFTER:
            self.proxies = alive
        if version != self._remote_version:
            await self._fetch_overrides(link)
            self._remote_version = version

    async def _fetch_overrides(self, link: RedisLink) -> None:
        found = await link.ask("HGETALL", self._prefix + "overrides")
        texts = [text.decode("utf-8", "replace") for text in found]
        self.overrides = dict(zip(texts[::2], texts[1::2], strict=True))
        self.overrides_version += 1
