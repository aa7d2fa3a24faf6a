"""Small tables of text that any proxy may write and all that share a Redis see: pauses, events, reports.

What was put holds here at once and reaches the others with the next `sync`; while Redis is away it is kept and handed
over when it is back, and what was read last stays. A Redis that comes back with nothing in it is told again what was
there: a mark in each table says that it is the one it was.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

Evaluate = Callable[[str, list[str], list[str]], Awaitable[Any]]
"""Runs a script on Redis: script, keys, arguments."""

_SYNC: Final = """
for i = 1, #ARGV, 3 do
  if ARGV[i + 1] == 'put' then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  else
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return {redis.call('HSETNX', KEYS[1], '#', '1'), redis.call('HGETALL', KEYS[1])}
"""
_MARK: Final = "#"

_log = logging.getLogger("llmproxy.control.scaling")


class Table(Protocol):
    """`values` by name. `known`: they have been read, or there is nobody else to write them."""

    @property
    def values(self) -> Mapping[str, str]: ...

    @property
    def known(self) -> bool: ...

    @property
    def is_shared(self) -> bool: ...

    def put(self, name: str, value: str | None) -> None:
        """Here at once; None takes it out."""

    async def sync(self) -> bool:
        """Hand over what was put and read what the others put. Whether that came about."""


class LocalTable:
    """Of a proxy that shares its fleet with nobody."""

    known = True
    is_shared = False

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def put(self, name: str, value: str | None) -> None:
        if value is None:
            self.values.pop(name, None)
        else:
            self.values[name] = value

    async def sync(self) -> bool:
        return True


class SharedTable:
    """A hash in Redis."""

    is_shared = True

    def __init__(self, evaluate: Evaluate, key: str) -> None:
        self.values: dict[str, str] = {}
        self.known = False
        self._evaluate = evaluate
        self._key = key
        self._pending: dict[str, str | None] = {}
        self._one_at_a_time = asyncio.Lock()

    def put(self, name: str, value: str | None) -> None:
        self._pending[name] = value
        _apply(self.values, {name: value})

    async def sync(self) -> bool:
        # Two answers that overtake each other would bring back what has just been taken out.
        async with self._one_at_a_time:
            try:
                is_new = await self._exchange()
                if is_new and self.known and self.values:
                    self._pending = {**self.values, **self._pending}
                    await self._exchange()
            except Exception as error:
                # Whoever asks who leads says in the log that Redis is away.
                _log.debug("%s: %s", self._key, error)
                return False
            self.known = True
            return True

    async def _exchange(self) -> bool:
        """Whether the table was not there. Then what is known stays."""
        sent = dict(self._pending)
        arguments = [
            part for name, value in sent.items() for part in (name, "drop" if value is None else "put", value or "")
        ]
        is_new, found = await self._evaluate(_SYNC, [self._key], arguments)
        self._pending = {
            name: value for name, value in self._pending.items() if name not in sent or sent[name] != value
        }
        if not is_new or not self.known:
            texts = [one.decode(errors="replace") for one in found]
            values = dict(zip(texts[::2], texts[1::2], strict=True))
            _apply(values, {_MARK: None, **self._pending})
            self.values = values
        return bool(is_new)


def _apply(values: dict[str, str], changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value
