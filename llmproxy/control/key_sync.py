"""Keeps a copy of the keys in Redis true, so that requests need not ask for them.

Copies all of them, then listens to the stream of changes, which answers within a second also when nothing changed; each
answer confirms the copy. After any failure everything is copied anew, so no change is ever missed. A store that has
lost its data (restarted empty, flushed) counts as one that cannot be asked: what is known stays, for as long as it
would if the store were gone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from llmproxy.control.tasks import end_tasks
from llmproxy.stores.redis_keys import RedisKeys
from llmproxy.stores.redis_trouble import in_words

WAIT_S = 1.0
RETRY_S = 0.5
COMPLAIN_EVERY_S = 60.0

_log = logging.getLogger("llmproxy.control.keys")


class KeyMirror(Protocol):
    """Where the copy is kept; `now` is Unix seconds."""

    def replace(self, records: Mapping[bytes, bytes], now: float) -> None: ...

    def change(self, digest: bytes, raw: bytes | None) -> None: ...

    def confirm(self, now: float) -> None: ...

    def lost(self) -> None: ...


class DataLost(Exception):
    """The store is there, but not what was in it."""


class KeySync:
    """The one writer of `mirror`. `close` ends the store's connections."""

    def __init__(
        self,
        store: RedisKeys,
        mirror: KeyMirror,
        *,
        wall: Callable[[], float],
        close: Callable[[], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._wall = wall
        self._close = close
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._epoch = ""
        self._complaint = ""
        self._complained_at: float | None = None
        self.tried = asyncio.Event()
        """Set when the store was asked the first time, whatever came of it."""

    def start(self) -> None:
        """Begin to copy."""
        self._task = asyncio.create_task(self._run(), name="key sync")

    async def stop(self) -> None:
        """End, and close the store's connections."""
        task, self._task = self._task, None
        try:
            await end_tasks(task)
        finally:
            await self._close()

    async def _run(self) -> None:
        while True:
            try:
                await self._follow(await self._copy())
            except Exception as error:
                self._mirror.lost()
                self._complain(error)
                self.tried.set()
            await self._sleep(RETRY_S)

    async def _copy(self) -> str:
        """Take everything over; from where to listen on."""
        copy = await self._store.copy()
        if self._epoch and not copy.epoch:
            raise DataLost("its data are gone")
        self._epoch = copy.epoch
        self._mirror.replace(copy.records, self._wall())
        self.tried.set()
        if self._complained_at is not None:
            self._complained_at = None
            _log.info("the key store answers again: %d keys", len(copy.records))
        return copy.last

    async def _follow(self, last: str) -> None:
        """Take changes over as they come; ends when the data are not the same any more."""
        while True:
            changes = await self._store.changes(last, WAIT_S)
            if changes.epoch != self._epoch:
                if self._epoch:
                    return
                self._epoch = changes.epoch
            last = changes.last
            for digest, raw in changes.records.items():
                self._mirror.change(digest, raw)
            self._mirror.confirm(self._wall())

    def _complain(self, error: Exception) -> None:
        now = self._wall()
        reason = str(error) if isinstance(error, DataLost) else in_words(error)
        said_at = self._complained_at
        if reason != self._complaint or said_at is None or now - said_at >= COMPLAIN_EVERY_S:
            self._complaint, self._complained_at = reason, now
            _log.error("the key store cannot be asked (%s); known keys stay good for a while", reason)
