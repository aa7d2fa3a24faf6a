"""Who may act: one proxy for each pool, among those that share a Redis.

The lock is a key with a time to live. Taking it draws a number that only grows, the fencing token; keeping it is only
possible for who holds it. A leader that cannot renew in time stops being one by its own clock, before the key can run
out for the others. Should it act all the same (it was stopped in the middle of a call), its token is lower than the
next leader's, and an actuator that remembers the highest refuses it. It would refuse everyone if a Redis that has
forgotten everything began at 1 again: the first token is the time in milliseconds, and higher than any that the proxy
which draws it has heard of.

Without Redis nobody leads: what runs goes on, and nothing is added or removed.
"""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from llmproxy.core.clock import Clock

TTL_S: Final = 15.0
_SAFE: Final = 0.6
"""The share of the time to live after which a leader that could not renew gives up."""

_TAKE: Final = """
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return -tonumber(string.match(held, '%d+$')) end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(string.sub(held, #ARGV[1] + 2))
end
local fence = redis.call('INCR', KEYS[2])
local least = math.max(tonumber(ARGV[3]) + 1, tonumber(ARGV[4]))
if fence < least then
  fence = least
  redis.call('SET', KEYS[2], fence)
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. fence, 'PX', ARGV[2])
return fence
"""
_GIVE_BACK: Final = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""

_log = logging.getLogger("llmproxy.control.scaling")


class Leadership(Protocol):
    """One pool's."""

    async def acquire(self) -> int | None:
        """Take or keep it: the fencing token, or None when another leads or nobody knows."""

    def is_held(self, token: int) -> bool:
        """Whether it is certain that we still lead by `token`. To be asked right before acting."""

    async def release(self) -> None: ...


class Alone:
    """A proxy that shares its fleet with nobody. Its token is of the same kind as those of others: a receiver keeps the
    highest it has seen, and the pool may have had a Redis before."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._token = max(int(wall() * 1000), 1)

    async def acquire(self) -> int | None:
        return self._token

    def is_held(self, token: int) -> bool:
        return True

    async def release(self) -> None:
        """Nobody waits for it."""


class RedisLeadership:
    """`evaluate(script, keys, arguments)` runs a script on Redis."""

    def __init__(
        self,
        pool: str,
        evaluate: Callable[[str, list[str], list[str]], Awaitable[Any]],
        *,
        clock: Clock,
        wall: Callable[[], float] = time.time,
        prefix: str = "llmproxy",
        ttl_s: float = TTL_S,
    ) -> None:
        self._evaluate = evaluate
        self._clock = clock
        self._wall = wall
        self._ttl_s = ttl_s
        self._pool = pool
        # One hash slot for both, as Redis Cluster wants it.
        base = f"{prefix}:scaling:{{{pool}}}"
        self._keys = [f"{base}:leader", f"{base}:fence"]
        self._me = secrets.token_hex(16)
        self._token: int | None = None
        self._highest = 0
        """Of all tokens that this proxy knows of: a Redis that comes back empty does not begin from nothing."""
        self._until = 0.0
        self._failing = False

    async def acquire(self) -> int | None:
        asked_at = self._clock()
        try:
            ttl_ms, wall_ms = str(int(self._ttl_s * 1000)), str(int(self._wall() * 1000))
            found = int(await self._evaluate(_TAKE, self._keys, [self._me, ttl_ms, str(self._highest), wall_ms]))
            # Below 0: another's.
            token = found if found > 0 else None
            self._highest = max(self._highest, abs(found))
        except Exception as error:
            if not self._failing:
                self._failing = True
                _log.warning("pool %s: cannot ask Redis who scales it (%s): nobody does", self._pool, error)
            return self._token if self._token is not None and self.is_held(self._token) else None
        self._failing = False
        if token != self._token:
            what = "scales it now" if token else "scales it no more" if self._token else "does not scale it"
            _log.info("pool %s: this proxy %s", self._pool, what)
        self._token = token
        # From before the question went out: the key cannot run out earlier than that.
        self._until = asked_at + self._ttl_s * _SAFE
        return token

    def is_held(self, token: int) -> bool:
        return token == self._token and self._clock() < self._until

    async def release(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                await self._evaluate(_GIVE_BACK, self._keys[:1], [self._me])
            except Exception as error:
                _log.debug("pool %s: the lock could not be given back: %s", self._pool, error)
