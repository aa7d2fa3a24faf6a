"""The composition root: it alone knows which concrete class stands behind which interface."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmproxy import __version__
from llmproxy.access import Access
from llmproxy.admin.server import AdminServer
from llmproxy.admin_views import AdminViews
from llmproxy.advising import Adviser
from llmproxy.autoscaling import Autoscaling
from llmproxy.config.model import Config, PoolConfig
from llmproxy.config.scaling import ScalingConfig
from llmproxy.control.catalog import Catalog
from llmproxy.control.costs import Costs
from llmproxy.control.discovery import FileDiscovery
from llmproxy.control.file_watch import FileWatch
from llmproxy.control.leavers import Leavers
from llmproxy.control.prober import Prober
from llmproxy.control.progress import ProgressWatch
from llmproxy.control.registrar import Registrar
from llmproxy.control.registrations import Registrations
from llmproxy.control.reload import Reloader, ReloadResult
from llmproxy.control.resolver import Resolver
from llmproxy.control.scaling.audit import Audit
from llmproxy.control.signals.scraper import Scraper
from llmproxy.control.status_log import StatusLog
from llmproxy.core.backend import Backend, Status
from llmproxy.core.errors import ProxyError
from llmproxy.core.outcome import Outcome
from llmproxy.core.pool import Pool
from llmproxy.core.ports import ProbeResult
from llmproxy.gauge_views import GaugeViews
from llmproxy.in_flight import InFlight
from llmproxy.limiting import Limiting
from llmproxy.pipeline.account import Account
from llmproxy.pipeline.handler import Handler
from llmproxy.pipeline.links import Links
from llmproxy.pipeline.local import LocalAnswers
from llmproxy.pipeline.snapshot import ServingPool, Snapshot
from llmproxy.pool_maker import PoolMaker
from llmproxy.settings import connection_settings, prefix_secret
from llmproxy.telemetry.access_log import AccessLog
from llmproxy.telemetry.exposition import Exposition
from llmproxy.telemetry.metrics import Metrics
from llmproxy.telemetry.sink import sink_for
from llmproxy.tls import ListenerTls, listener_context
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.listener import Listener

log = logging.getLogger("llmproxy")

FIRST_LOOKS_S = 1.0
"""How long clients that come while the proxy starts wait for the backends' first probes."""
IDLE_PATIENCE_S = 1.0
"""When draining, how long an idle client connection may still bring a request: one may be on its way."""
LAST_WORDS_S = 1.0
"""How long clients whose answers are broken off have to take what they are told."""


class App:
    """One proxy. `await start()`; `await stop()` drains and ends it. Two of them live in one process without
    knowing of each other.

    `load` reads the configuration again for a reload (None: there is nothing to reload, as in a demo).
    """

    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config] | None = None,
        watch: FileWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        self.config = config
        self._clock = clock
        self._rng = random.Random(seed)  # noqa: S311 (tie-breaks and jitter, no secrets)
        self._load = load
        self.pools: dict[str, ServingPool] = {}
        self._probers: dict[str, Prober] = {}
        self._maker = PoolMaker(self._rng, self._status_changed)
        self._stopped = False
        self.metrics = Metrics(version=__version__)
        self._exposition = Exposition(self.metrics)
        self._prefix_secret = prefix_secret(config.logging)
        self._access_log = (
            AccessLog(sink_for(config.logging.file), prefix_key=self._prefix_secret)
            if config.logging.access != "off"
            else None
        )
        self.resolver = Resolver(clock=clock, rng=self._rng)
        self._registrar = Registrar(self.resolver, clock=clock, on_change=self._members_changed)
        self.resolver.on_change = self._registrar.update
        self._catalog = Catalog(lambda: self.pools, resolver=self.resolver, clock=clock, on_names=self.metrics.know)
        self._status_log = StatusLog(clock)
        self._leavers = Leavers(clock, on_backend=self._forget_backend, on_pool=self.metrics.forget_pool)
        self._tls: ListenerTls | None = None
        self._access = Access(time.time)
        self._limiting = Limiting(self._rng, clock)
        self._in_flight = InFlight(lambda: self.listener.connections, clock)
        self._progress = ProgressWatch(
            lambda: self.pools, self._in_flight.work, resolver=self.resolver, clock=clock, on_hung=self._hung
        )
        self.scraper = Scraper(
            lambda: self.pools,
            resolver=self.resolver,
            clock=clock,
            rng=self._rng,
            names=self._catalog.served,
            on_read=self._progress.read,
        )
        audit = self._audit = Audit(Path(config.admin.audit) if config.admin.audit else None, time.time)
        self.autoscaling = Autoscaling(
            registrar=self._registrar,
            resolver=self.resolver,
            metrics=self.metrics,
            clock=clock,
            wall=time.time,
            rng=self._rng,
            audit=audit,
            on_ready=lambda pool: self.handler.room(pool).freed(),
            on_heard=lambda pool: self._registrations.heard(pool),
            makers=lambda now: self.handler.response_ids.makers_of_late(now),
        )
        self._adviser = Adviser(lambda: self.autoscaling.all.scalers, self._scaling_of, clock)
        self._discovery = FileDiscovery(self._registrar)
        self._costs = Costs(
            lambda: self.pools, self.metrics.usage, clock, outside=self.autoscaling.all.outside_per_hour
        )
        self._registrations = Registrations(
            self._registrar,
            clock,
            is_pool=lambda name: name in self.pools,
            taken=lambda id: any(one.id == id for pool in self.pools.values() for one in pool.backends),
            on_change=lambda who, what, facts: audit.write(who, what, "", **facts),
            table=self.autoscaling.registered,
        )
        self.reloader = Reloader(
            load=self._reload_source, apply=self._apply, current=config, watch=watch, on_result=self._reloaded
        )

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind, probe, serve. Raises OSError when a port is taken and ValueError for an unusable certificate."""
        loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(loop, self._clock, on_tick_lag=self.metrics.loop_lag.observe)
        self._deadlines.add(self._leavers)
        self._deadlines.add(self._registrations)
        self._deadlines.add(self._costs)
        self.links = Links(loop, self._clock, self._deadlines, self.resolver.hosts)
        await self._registrar.prepare(self.config.pools)
        self._set_pools(self.config)
        self._costs.expired(self._clock())
        self.handler = Handler(
            Snapshot(self.config, self.pools),
            loop=loop,
            clock=self._clock,
            deadlines=self._deadlines,
            links=self.links,
            metrics=self.metrics,
            account=Account(self.metrics, self._access_log, time.time),
            local=LocalAnswers(self._catalog.names, time.time()),
        )
        self.handler.prefix_secret = self._prefix_secret
        self.handler.hot = self.autoscaling.hot
        self.handler.gate = await self._access.configure(self.config)
        self.handler.limiter = await self._limiting.prepare(self.config)
        await self._access.commit(self.config)
        await self._limiting.commit(self.config)
        self.listener = Listener(
            self.handler,
            deadlines=self._deadlines,
            clock=self._clock,
            settings=connection_settings(self.config),
            max_connections=self.config.server.limits.connections,
        )
        self.admin = AdminServer(self._admin_views().deps(), host=self.config.admin.host, port=self.config.admin.port)
        self._gauge_views().tell()
        server = self.config.server
        self._tls = None if server.tls is None else ListenerTls(server.tls)
        await self.listener.listen(server.host, server.port, None if self._tls is None else self._tls.context)
        try:
            await self.admin.start()
        except BaseException:
            await self.listener.stop_accepting()
            raise
        if self._access_log is not None:
            self._access_log.start()
        self._deadlines.start()
        self.resolver.start()
        for prober in self._probers.values():
            await prober.start()
        self._catalog.start()
        await self._discovery.apply(self.config.pools)
        await self._first_looks()
        await self.listener.accept()
        self._discovery.start()
        await self._progress.start()
        await self.scraper.start()
        await self.autoscaling.start(self.config, self.pools)
        if self._load is not None:
            self.reloader.start()
        self.metrics.reloaded(True, time.time())

    async def _first_looks(self) -> None:
        """Whoever asks at once is not told that no backend is available because none was looked at yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOKS_S):
                for prober in self._probers.values():
                    await prober.first_looks()

    def drain(self) -> None:
        """From now on: not ready, answers say `Connection: close`, idle connections are closed before long."""
        self.handler.draining = True
        self.listener.close_idle(IDLE_PATIENCE_S)

    async def stop(self, drain_s: float | None = None) -> bool:
        """Finish what runs, up to `drain_s` (default `server.drain_timeout`), then end. False when streams were cut."""
        if self._stopped:
            return True
        self._stopped = True
        self.drain()
        await self.listener.stop_accepting()
        clean = await self._drained(self.config.server.drain_timeout if drain_s is None else drain_s)
        if not clean:
            # Streams end with an event that says so, which is given a moment to go out.
            self.listener.give_up_all(ProxyError("the proxy is shutting down", status=503, code="shutting_down"))
            await self._drained(LAST_WORDS_S)
        self.listener.abort_all()
        await self.reloader.stop()
        await self._adviser.stop()
        await self.autoscaling.stop()
        await self._discovery.stop()
        await self._access.stop()
        await self._limiting.stop()
        await self._catalog.stop()
        await self.scraper.stop()
        await self._progress.stop()
        await asyncio.gather(*(prober.stop() for prober in self._probers.values()))
        await self.resolver.stop()
        await self.admin.stop()
        self.links.close()
        self._deadlines.stop()
        await asyncio.sleep(0)
        if self._access_log is not None:
            await asyncio.to_thread(self._access_log.close)
        return clean

    async def _drained(self, timeout_s: float) -> bool:
        """Wait until the last client connection is closed, or `timeout_s` is over."""
        ends_at = self._clock() + timeout_s
        while self.listener.connections:
            if self._clock() >= ends_at:
                return False
            self.listener.close_idle(min(IDLE_PATIENCE_S, timeout_s / 2))
            await asyncio.sleep(0.02)
        return True

    # -- configuration ---------------------------------------------------------------------------------------------

    def _scaling_of(self, pool: str) -> ScalingConfig | None:
        return self.config.pools[pool].scaling if pool in self.config.pools else None

    def _reload_source(self) -> Config:
        if self._load is None:
            raise ValueError("this proxy was not started from a file; there is nothing to reload")
        return self._load()

    def _reloaded(self, result: ReloadResult) -> None:
        self.metrics.reloaded(result.ok, time.time())

    async def _apply(self, config: Config) -> None:
        """Put a new configuration in force, whole. Requests in flight keep what they captured."""
        for pool in config.pools.values():
            self._maker.check(pool)
        tls = config.server.tls
        # Anew at each reload: the files may have changed although their names have not.
        certificate = None if tls is None else await asyncio.to_thread(listener_context, tls)
        await self._registrar.prepare(config.pools)
        gate = await self._access.configure(config)
        limiter = await self._limiting.prepare(config)
        gone = self.pools.keys() - config.pools.keys()
        self._set_pools(config)
        self.config = config
        self.handler.snapshot = Snapshot(config, self.pools)
        self.handler.gate, self.handler.limiter = gate, limiter
        await self._access.commit(config)
        await self._limiting.commit(config)
        self.listener.configure(connection_settings(config))
        self.listener.max_connections = config.server.limits.connections
        if self._tls is not None and certificate is not None:
            self._tls.replace(certificate)
        for name in gone:
            self._maker.forget(name)
            self.handler.forget(name)
            await self._probers.pop(name).stop()
        for prober in self._probers.values():
            await prober.start()
        await self._discovery.apply(config.pools)
        await self.autoscaling.apply(config, self.pools)

    def _set_pools(self, config: Config) -> None:
        now = self._clock()
        self.metrics.know(config.models)
        pools = {name: self._pool(name, settings, now) for name, settings in config.pools.items()}
        for name, pool in self.pools.items():
            if name not in pools:
                log.info("pool %s leaves, with %d backends", name, len(pool.backends))
                pool.set_members((), now)
        self.pools = pools
        for pool in pools.values():
            if pool.name not in self._probers:
                self._probers[pool.name] = Prober(
                    pool, resolver=self.resolver, clock=self._clock, rng=self._rng, on_result=self._probed(pool)
                )
        self._registrar.set_pools(pools)
        self._registrar.update()
        self._sync(pools)

    def _pool(self, name: str, settings: PoolConfig, now: float) -> ServingPool:
        """The pool `name`, new or with its settings replaced."""
        pool = self.pools.get(name)
        if pool is None:
            return self._maker.make(name, settings)
        self._maker.renew(pool, settings, now)
        return pool

    def _members_changed(self, pool: Pool[PoolConfig]) -> None:
        """The registrar changed a pool (a reload, or DNS)."""
        self._sync(self.pools)

    def _sync(self, pools: Mapping[str, ServingPool]) -> None:
        self.links.configure(
            (backend, pool.settings.timeouts.connect, pool.settings.timeouts.keepalive)
            for pool in pools.values()
            for backend in pool.backends
        )
        for prober in self._probers.values():
            prober.sync()
        self._catalog.forget_authorities()
        self._leavers.update(pools)
        self._progress.sync()
        self.scraper.sync()

    def _hung(self, pool: Pool[PoolConfig], backend: Backend) -> None:
        """Its engine hangs: what waits there for a first byte may go elsewhere."""
        for x in self._in_flight.exchanges_at(backend):
            if not x.answered and x.relay is not None:
                x.relay.abort()
                x.relay.lost(Outcome.FIRST_BYTE_TIMEOUT)
        self.autoscaling.hung(pool, backend)

    def _forget_backend(self, pool: str, backend: str) -> None:
        self.metrics.forget(pool, backend)
        self._status_log.forget(pool, backend)

    def _status_changed(self, pool: str) -> Callable[[Backend, Status, Status, str], None]:
        def changed(backend: Backend, before: Status, after: Status, why: str) -> None:
            self._status_log.changed(pool, backend, before, after, why)
            if after is Status.HEALTHY:
                self._catalog.came_up(backend)

        return changed

    def _probed(self, pool: ServingPool) -> Callable[[Backend, ProbeResult, float], None]:
        def probed(backend: Backend, result: ProbeResult, took_s: float) -> None:
            self.metrics.probes[pool.name, backend.id, result.value] += 1
            self._status_log.calm(pool.name, backend)
            self.handler.room(pool).freed()

        return probed

    # -- views -----------------------------------------------------------------------------------------------------

    def _admin_views(self) -> AdminViews:
        return AdminViews(
            config=lambda: self.config,
            pools=lambda: self.pools,
            health=self._maker.health,
            clock=self._clock,
            handler=self.handler,
            limiting=self._limiting,
            reloader=self.reloader,
            autoscaling=self.autoscaling,
            costs=self._costs,
            registrations=self._registrations,
            render_metrics=self._exposition.render,
            advise=self._adviser.advise,
            audit=self._audit,
        )

    def _gauge_views(self) -> GaugeViews:
        return GaugeViews(
            metrics=self.metrics,
            pools=lambda: self.pools,
            health=self._maker.health,
            clock=self._clock,
            handler=self.handler,
            listener=self.listener,
            links=self.links,
            access=self._access,
            access_log=self._access_log,
            limiting=self._limiting,
            autoscaling=self.autoscaling,
            costs=self._costs,
            scraper=self.scraper,
            progress=self._progress,
        )
