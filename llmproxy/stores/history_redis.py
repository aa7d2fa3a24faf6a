"""The history of scaling in Redis, for proxies that share one: whoever leads writes, and its successor goes on with it.

Two keys a pool, in one hash slot: a sorted set of minutes (its score is the minute, its members `minute:[figures]`) and
a hash of facts. They have no time to live: a fleet that was off for a month still knows what was paused.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

from llmproxy.core.redis_url import parse_redis_url
from llmproxy.stores.history import HistoryError, Point

TIMEOUT_S: Final = 2.0

_APPEND: Final = """
for i = 2, #ARGV, 2 do
  redis.call('ZREMRANGEBYSCORE', KEYS[1], ARGV[i], ARGV[i])
  redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i] .. ':' .. ARGV[i + 1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])
return 1
"""


class RedisHistory:
    """Blocking, like every `HistoryStore`: a connection a call, in an event loop of its own, so it is to be called from
    a thread that has none. Nothing is tried twice, as whoever keeps a history asks again by itself."""

    def __init__(self, url: str, *, prefix: str = "llmproxy", timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError for a bad URL."""
        parse_redis_url(url)
        self._url = url
        self._prefix = prefix
        self._timeout_s = timeout_s

    def read(self, pool: str, since_minute: int) -> list[Point]:
        members = self._ask("ZRANGEBYSCORE", self._minutes(pool), since_minute, "+inf")
        return [point for point in map(_point, members) if point is not None]

    def append(self, pool: str, points: Sequence[Point], forget_before_minute: int) -> None:
        parts = [part for minute, figures in points for part in (minute, json.dumps(figures))]
        self._ask("EVAL", _APPEND, 1, self._minutes(pool), forget_before_minute, *parts)

    def fact(self, pool: str, name: str) -> str | None:
        found = self._ask("HGET", self._facts(pool), name)
        return None if found is None else found.decode(errors="replace")

    def remember(self, pool: str, name: str, value: str | None) -> None:
        if value is None:
            self._ask("HDEL", self._facts(pool), name)
        else:
            self._ask("HSET", self._facts(pool), name, value)

    def close(self) -> None:
        """Connections are closed after each call."""

    # -- inside ----------------------------------------------------------------------------------------------------

    def _minutes(self, pool: str) -> str:
        return f"{self._prefix}:scaling:{{{pool}}}:minutes"

    def _facts(self, pool: str) -> str:
        return f"{self._prefix}:scaling:{{{pool}}}:facts"

    def _ask(self, *command: str | int) -> Any:
        return asyncio.run(_ask(self._url, self._timeout_s, command))


async def _ask(url: str, timeout_s: float, command: Sequence[str | int]) -> Any:
    # Not above: its package is an extra.
    import hiredis

    from llmproxy.stores.redis_client import RedisClient

    client = RedisClient(url, timeout_s=timeout_s)
    try:
        return await client.ask(*command)
    except (OSError, hiredis.HiredisError) as error:
        # Never the URL: it may hold a password.
        raise HistoryError(f"Redis: {error or type(error).__name__}") from None
    finally:
        await client.aclose()


def _point(member: bytes) -> Point | None:
    """None for what somebody else wrote there."""
    try:
        minute, _, figures = member.decode().partition(":")
        found = json.loads(figures)
        return int(minute), tuple(None if one is None else float(one) for one in found)
    except (ValueError, TypeError):
        return None
