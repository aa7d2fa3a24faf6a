"""What proxies that share a Redis have in common of a pool's scaling: who leads, what was said, what is paused."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmproxy.config.scaling import ScalingConfig
from llmproxy.control.scaling.autoscalers import EVERYWHERE, Autoscalers
from llmproxy.control.scaling.leader import Alone, Leadership, RedisLeadership
from llmproxy.control.scaling.orders import Orders
from llmproxy.control.scaling.reports import Reports
from llmproxy.control.scaling.shared import Shared
from llmproxy.control.scaling.tables import SharedTable
from llmproxy.core.clock import Clock
from llmproxy.scaling_parts import KEY_PREFIX

if TYPE_CHECKING:
    from llmproxy.stores.redis_client import RedisClient


class SharedScaling:
    """One process's links to it. `on_heard(pool)`: other proxies may have said something."""

    def __init__(
        self, loops: Autoscalers, *, clock: Clock, wall: Callable[[], float], on_heard: Callable[[str], None]
    ) -> None:
        self._loops = loops
        self._clock = clock
        self._wall = wall
        self._on_heard = on_heard
        self._clients: dict[tuple[str, str], RedisClient] = {}
        """By pool and URL: in a cluster, each pool's keys are on a node of their own."""
        self._pauses: dict[str, SharedTable] = {}
        self._me = secrets.token_hex(8)
        """What this proxy calls itself where others listen."""

    def leadership(self, pool: str, settings: ScalingConfig) -> Leadership:
        if not settings.redis:
            return Alone(self._wall)
        evaluate = self._client_of(pool, settings.redis).evaluate
        return RedisLeadership(pool, evaluate, clock=self._clock, wall=self._wall, prefix=KEY_PREFIX)

    def shared(self, pool: str, settings: ScalingConfig) -> Shared:
        url = settings.redis
        if not url:
            return Shared(pauses=self._loops.own_pauses)
        if url not in self._pauses:
            self._pauses[url] = SharedTable(self._client_of(EVERYWHERE, url).evaluate, f"{KEY_PREFIX}:scaling:pauses")
            self._loops.share_pauses(self._pauses[url])
        ask = self._client_of(pool, url).evaluate
        key = f"{KEY_PREFIX}:scaling:{{{pool}}}"
        reports = SharedTable(ask, f"{key}:reports")
        return Shared(
            self._pauses[url],
            SharedTable(ask, f"{key}:events"),
            SharedTable(ask, f"{key}:registered"),
            Reports(reports, self._me),
            reports,
            Orders(ask, f"{key}:stages", f"{key}:fence"),
            lambda: self._on_heard(pool),
        )

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _client_of(self, pool: str, url: str) -> "RedisClient":
        if (pool, url) not in self._clients:
            # Not above: its package is an extra.
            from llmproxy.stores.redis_client import RedisClient

            self._clients[pool, url] = RedisClient(url)
        return self._clients[pool, url]
