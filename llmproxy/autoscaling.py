"""Builds the autoscaler from the configuration: which classes stand behind a pool's `scaling`."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from llmproxy.config.model import Config, PoolConfig
from llmproxy.config.scaling import ScalingConfig
from llmproxy.control.probe import ProbeClient
from llmproxy.control.registrar import Registrar
from llmproxy.control.resolver import Resolver
from llmproxy.control.scaling.audit import Audit
from llmproxy.control.scaling.autoscalers import Autoscalers
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.bring_up import BringUp
from llmproxy.control.scaling.decisions import Decisions
from llmproxy.control.scaling.events import Events
from llmproxy.control.scaling.fleet import Fleet
from llmproxy.control.scaling.keeper import Keeper, carry_over
from llmproxy.control.scaling.lives import Lives
from llmproxy.control.scaling.meter import Meter
from llmproxy.control.scaling.parts import Parts
from llmproxy.control.scaling.pool_scaler import PoolScaler
from llmproxy.control.scaling.queries import Queries
from llmproxy.control.scaling.retirement import Retirement
from llmproxy.control.scaling.start_times import StartTimes
from llmproxy.control.scaling.tables import Table
from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool
from llmproxy.core.ports import SessionKeeping
from llmproxy.pipeline.hot_prompts import HotPrompts
from llmproxy.policy.scaling.decision import Decider
from llmproxy.scaling_parts import (
    actuator_of,
    configured_of,
    decider_of,
    history_of,
    most_of,
    most_per_hour,
    pace_of,
    queries_of,
    terms_of,
)
from llmproxy.scaling_shared import SharedScaling
from llmproxy.stores.history_redis import RedisHistory
from llmproxy.telemetry.metrics import Metrics

SOURCE = "scaling"
"""What the registrar calls the backends that come from here."""

log = logging.getLogger("llmproxy")


class Autoscaling:
    """`apply` with each configuration, `start` once the proxy serves. `on_ready(pool)` hears of new capacity,
    `on_heard(pool)` that other proxies may have said something. `makers(now)`: ids of backends that hold stored answers
    of late."""

    def __init__(
        self,
        *,
        registrar: Registrar,
        resolver: Resolver,
        metrics: Metrics,
        clock: Clock,
        wall: Callable[[], float],
        rng: random.Random,
        audit: Audit,
        on_ready: Callable[[Pool[PoolConfig]], None],
        on_heard: Callable[[str], None] = lambda pool: None,
        makers: Callable[[float], Collection[str]] = lambda now: (),
    ) -> None:
        self.all = Autoscalers(audit, clock)
        self._audit = audit
        self._registrar = registrar
        self._client = ProbeClient(resolver)
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._on_ready = on_ready
        self._makers = makers
        self._running = False
        self._sharing = SharedScaling(self.all, clock=clock, wall=wall, on_heard=on_heard)
        self.hot: dict[str, HotPrompts] = {}
        """Of pools whose replicas are warmed with what traffic teaches, by name."""
        self._retiring: dict[str, Retirement] = {}
        """Of pools that are scaled no more, by name."""
        self._built_from: dict[str, ScalingConfig] = {}
        self._in_force: dict[str, ScalingConfig] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self, config: Config, pools: Mapping[str, Pool[PoolConfig]]) -> None:
        await self._client.__aenter__()
        self._running = True
        await self.apply(config, pools)

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        await asyncio.gather(self.all.stop(), *(one.end() for one in self._retiring.values()))
        await self._sharing.aclose()
        await self._client.__aexit__(None, None, None)

    async def apply(self, config: Config, pools: Mapping[str, Pool[PoolConfig]]) -> None:
        """Begin, change or end each pool's loop as the configuration says. Loops go on with what they know."""
        if not self._running:
            return
        scalers = self.all.scalers
        self._retiring = {name: one for name, one in self._retiring.items() if not one.is_over}
        for name in [name for name in scalers if name not in pools or config.pools[name].scaling is None]:
            scaler = scalers.pop(name)
            await scaler.halt()
            self.hot.pop(name, None)
            self._registrar.announce(name, SOURCE, ())
            self._retiring[name] = Retirement(scaler, self._clock)
            if name in pools:
                pools[name].elastic = False
        for name, pool in pools.items():
            settings = config.pools[name].scaling
            if settings is None:
                continue
            if settings.warm_up.hottest:
                self.hot.setdefault(name, HotPrompts())
            else:
                self.hot.pop(name, None)
            back = await self._back(pool, settings)
            if back is not None:
                scalers[name] = back
                back.start()
            if name not in scalers:
                scalers[name] = self._scaler(pool, settings)
                self._built_from[name] = settings
                scalers[name].start()
            else:
                self._change(scalers[name], self._in_force[name], settings)
                for what in ("actuator", "history", "redis", "tiers_of_capacity"):
                    if getattr(settings, what) != getattr(self._built_from[name], what):
                        log.warning("pool %s: another scaling.%s takes effect at the next start", name, what)
            self._in_force[name] = settings
            pool.elastic = not scalers[name].parts.dry

    async def _back(self, pool: Pool[PoolConfig], settings: ScalingConfig) -> PoolScaler | None:
        """The loop that this pool had until lately, where it fits what the pool is to be; one that does not ends."""
        retirement = self._retiring.pop(pool.name, None)
        if retirement is None or retirement.is_over:
            return None
        if settings.actuator != self._built_from[pool.name].actuator:
            await retirement.end()
            return None
        scaler = await retirement.taken_back()
        if scaler is None or scaler.parts.pool is pool:
            return scaler
        await scaler.stop()
        return None

    def hung(self, pool: Pool[PoolConfig], backend: Backend) -> None:
        self.all.hung(pool.name, backend)

    def registered(self, pool: str) -> Table | None:
        """Where backends that register themselves with any proxy are known to all; None where each is on its own."""
        scaler = self.all.scalers.get(pool)
        table = scaler.parts.shared.registered if scaler is not None else None
        return table if table is not None and table.is_shared else None

    # -- building --------------------------------------------------------------------------------------------------

    def _scaler(self, pool: Pool[PoolConfig], settings: ScalingConfig) -> PoolScaler:
        tiers = [one.name for one in settings.tiers_of_capacity]
        fleet, backoff = Fleet(tiers or [""]), Backoff(tiers or [""])
        shared = self._sharing.shared(pool.name, settings)
        events = Events(self._clock, wall=self._wall, table=shared.events)
        times = StartTimes(settings.cold_start, settings.start_timeout)
        dry, paused = settings.actuator.kind == "dry_run", partial(self.all.is_paused, pool.name)
        lives = Lives(
            pool,
            fleet,
            BringUp(self._client),
            terms_of(settings),
            announce=lambda found: self._registrar.announce(pool.name, SOURCE, found),
            times=times,
            backoff=backoff,
            clock=self._clock,
            on_ready=lambda: self._on_ready(pool),
            have_left=lambda replica: shared.have_left(replica, self._clock()),
            hottest=lambda count: self._hottest(pool.name, count),
        )
        parts = Parts(
            pool=pool,
            decider=decider_of(settings, events),
            actuator=actuator_of(pool.name, settings, paused),
            meter=Meter(
                pool,
                self._metrics,
                self._clock(),
                slo_ttft_s=settings.objective.ttft,
                configured=configured_of(settings),
                tiers=tiers,
            ),
            fleet=fleet,
            lives=lives,
            times=times,
            backoff=backoff,
            leadership=self._sharing.leadership(pool.name, settings),
            events=events,
            queries=Queries(queries_of(settings), self._clock),
            decisions=Decisions(pool.name),
            keeper=self._keeper(pool.name, settings),
            most=most_of(settings),
            most_per_hour=most_per_hour(settings),
            dry=dry,
            shared=shared,
            own_sessions=lambda now: self._sessions(pool, now),
        )
        return PoolScaler(
            parts,
            pace_of(settings),
            clock=self._clock,
            wall=self._wall,
            paused=paused,
            on_act=lambda why, facts: self._audit.write("autoscaler", "scale", why, **facts),
        )

    def _hottest(self, pool: str, count: int) -> Sequence[dict[str, Any]]:
        hot = self.hot.get(pool)
        return hot.hottest(count) if hot is not None else ()

    def _sessions(self, pool: Pool[PoolConfig], now: float) -> Mapping[str, int]:
        """Sessions at each backend, as far as this proxy sent them there; stored answers count as one."""
        routing = pool.routing
        found: Counter[str] = Counter(self._makers(now))
        if isinstance(routing, SessionKeeping):
            found.update(routing.sessions(now))
        return found

    def _change(self, scaler: PoolScaler, before: ScalingConfig, settings: ScalingConfig) -> None:
        """New settings for a loop that runs. What did not change keeps what it knows."""
        parts, old = scaler.parts, scaler.parts.decider
        # Its tiers, and what this machine has room for, are those it was built from: the engines that run are of those.
        built = self._built_from[parts.pool.name]
        kept = settings.model_copy(update={"actuator": built.actuator, "tiers_of_capacity": built.tiers_of_capacity})
        # First, as it reads a file and may fail: a change is made whole or not at all.
        terms, new = terms_of(kept), decider_of(kept, parts.events)
        policies = old.policies if settings.policies == before.policies else new.policies
        stabiliser = old.stabiliser if settings.behavior == before.behavior else new.stabiliser
        carry_over(old.guardrails, new.guardrails)
        parts.keeper.take(old)
        if old.tiers is not None and new.tiers is not None:
            old.tiers.reprice(new.tiers)
        parts.decider = Decider(policies, stabiliser, new.guardrails, old.tiers)
        parts.lives.terms = terms
        parts.times.configured_s, parts.times.at_least_s = settings.cold_start, settings.start_timeout
        parts.meter.slo_ttft_s = settings.objective.ttft
        if settings.capacity != before.capacity:
            parts.meter.capacity.believe(configured_of(settings))
        parts.queries.change(queries_of(settings))
        parts.most, parts.most_per_hour = most_of(kept), most_per_hour(kept)
        scaler.pace = pace_of(settings)
        scaler.hurry()

    def _keeper(self, pool: str, settings: ScalingConfig) -> Keeper:
        store = history_of(pool, settings)
        is_shared = isinstance(store, RedisHistory)
        if settings.redis:
            # Pauses are in a table there.
            return Keeper(pool, store, self._wall, is_shared=is_shared)
        return Keeper(
            pool,
            store,
            self._wall,
            paused=lambda: self.all.pauses(pool),
            on_paused=self.all.still_paused,
        )
