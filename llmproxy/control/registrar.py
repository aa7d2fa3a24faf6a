"""The one writer of `Pool.backends`: membership from the configuration, from DNS where it says `resolve: true`, and
from whoever else brings backends (the autoscaler, instances that register themselves, a watched file)."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from llmproxy.config.model import PoolConfig
from llmproxy.control.members import merge, specs
from llmproxy.control.resolver import Resolver
from llmproxy.core.backend import BackendSpec
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool

_log = logging.getLogger("llmproxy.control.registrar")


class Registrar:
    """Sets the members of pools. `on_change(pool)` is called after a pool's membership changed.

    Reload: `await prepare(configs)` first (looks names up; nothing changes yet), then, without an await in between,
    `set_pools` and `update` swap everything at once. `resolver.on_change = registrar.update` keeps it true.
    """

    def __init__(
        self, resolver: Resolver, *, clock: Clock, on_change: Callable[[Pool[PoolConfig]], None] | None = None
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._on_change = on_change
        self._pools: tuple[Pool[PoolConfig], ...] = ()
        self._brought: dict[tuple[str, str], tuple[BackendSpec, ...]] = {}
        """By pool and source."""

    async def prepare(self, configs: Mapping[str, PoolConfig]) -> None:
        """Look up the names behind the backends, so that `update` need not wait. A name that fails is tried later."""
        hosts = {
            (spec.host, spec.port)
            for name, config in configs.items()
            for spec in (backend.spec(name) for backend in config.backends)
        }
        await asyncio.gather(*(self._resolver.lookup(*host) for host in hosts), return_exceptions=True)

    def set_pools(self, pools: Mapping[str, Pool[PoolConfig]]) -> None:
        """These are the pools from now on; names that none of them uses are no longer looked up."""
        self._pools = tuple(pools.values())
        names = {pool.name for pool in self._pools}
        self._brought = {key: found for key, found in self._brought.items() if key[0] in names}
        self._keep_names()

    def update(self) -> None:
        """Make every pool's membership what its settings and the known addresses say."""
        for pool in self._pools:
            self._update(pool)

    def announce(self, pool: str, source: str, found: Sequence[BackendSpec]) -> None:
        """These are the backends that `source` brings to a pool from now on, instead of those it brought before. An id
        that the configuration, or an earlier source, has already stays theirs."""
        key, brought = (pool, source), tuple(found)
        if self._brought.get(key, ()) == brought:
            return
        self._brought[key] = brought
        self._keep_names()
        for one in self._pools:
            if one.name == pool:
                self._update(one)

    def _keep_names(self) -> None:
        self._resolver.keep_only(
            {
                (spec.host, spec.port)
                for pool in self._pools
                for spec in (
                    *(backend.spec(pool.name) for backend in pool.settings.backends),
                    *self._brought_to(pool.name),
                )
            }
        )

    def _brought_to(self, pool: str) -> Iterator[BackendSpec]:
        for (name, _), found in self._brought.items():
            if name == pool:
                yield from found

    def _update(self, pool: Pool[PoolConfig]) -> None:
        by_id = {spec.id: spec for spec in specs(pool.name, pool.settings, self._resolver.cached)}
        for spec in self._brought_to(pool.name):
            by_id.setdefault(spec.id, spec)
        wanted = tuple(by_id.values())
        before = pool.backends
        if [backend.spec for backend in before] == list(wanted):
            return
        members = merge(before, wanted)
        pool.set_members(members, self._clock())
        joined = [backend.id for backend in members if backend not in before]
        left = [backend.id for backend in before if backend not in members]
        _log.info("pool %s has %d backends; joined: %s; left: %s", pool.name, len(members), joined, left)
        if self._on_change is not None:
            self._on_change(pool)
