"""Builds the autoscaler from the configuration: which classes stand behind a pool's `scaling`."""

import logging
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmproxy.config.model import Config, PoolConfig
from llmproxy.config.scaling import ActuatorConfig, ScalingConfig, port_range
from llmproxy.control.actuators.base import Actuator
from llmproxy.control.actuators.dry_run import DryRun
from llmproxy.control.actuators.process import ProcessActuator, ProcessOptions
from llmproxy.control.actuators.webhook import WebhookActuator, WebhookOptions
from llmproxy.control.probe import ProbeClient
from llmproxy.control.registrar import Registrar
from llmproxy.control.resolver import Resolver
from llmproxy.control.scaling.audit import Audit
from llmproxy.control.scaling.autoscalers import Autoscalers
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.bring_up import BringUp, read_prompts
from llmproxy.control.scaling.decisions import Decisions
from llmproxy.control.scaling.events import Activation, Events
from llmproxy.control.scaling.fleet import Fleet
from llmproxy.control.scaling.keeper import Keeper, carry_over
from llmproxy.control.scaling.leader import Alone, Leadership, RedisLeadership
from llmproxy.control.scaling.lives import Lives, Terms
from llmproxy.control.scaling.meter import Meter
from llmproxy.control.scaling.pool_scaler import Pace, Parts, PoolScaler
from llmproxy.control.scaling.queries import Queries, Query
from llmproxy.control.scaling.start_times import StartTimes
from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool
from llmproxy.policy.scaling.base import Rates, ScalingPolicy
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.registry import build
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser
from llmproxy.stores.history import HistoryStore, MemoryHistory, SqliteHistory
from llmproxy.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from llmproxy.stores.redis_client import RedisClient

SOURCE = "scaling"
"""What the registrar calls the backends that come from here."""
_WEBHOOK_POLL_S = 5.0
_DOWN_WINDOW_S = 300.0

log = logging.getLogger("llmproxy")


class Autoscaling:
    """`apply` with each configuration, `start` once the proxy serves. `on_ready(pool)` hears of new capacity."""

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
    ) -> None:
        self.all = Autoscalers(audit, clock)
        self._registrar = registrar
        self._client = ProbeClient(resolver)
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._on_ready = on_ready
        self._running = False
        self._redis: dict[tuple[str, str], RedisClient] = {}
        """By pool and URL: in a cluster, each pool's lock is on a node of its own."""
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
        await self.all.stop()
        for redis in self._redis.values():
            await redis.aclose()
        await self._client.__aexit__(None, None, None)

    async def apply(self, config: Config, pools: Mapping[str, Pool[PoolConfig]]) -> None:
        """Begin, change or end each pool's loop as the configuration says. Loops go on with what they know."""
        if not self._running:
            return
        scalers = self.all.scalers
        for name in [name for name in scalers if name not in pools or config.pools[name].scaling is None]:
            await scalers.pop(name).stop()
            self._registrar.announce(name, SOURCE, ())
            if name in pools:
                pools[name].elastic = False
        for name, pool in pools.items():
            settings = config.pools[name].scaling
            if settings is None:
                continue
            if name not in scalers:
                scalers[name] = self._scaler(pool, settings)
                self._built_from[name] = settings
                scalers[name].start()
            else:
                self._change(scalers[name], self._in_force[name], settings)
                for what in ("actuator", "history"):
                    if getattr(settings, what) != getattr(self._built_from[name], what):
                        log.warning("pool %s: another scaling.%s takes effect at the next start", name, what)
            self._in_force[name] = settings
            pool.elastic = not scalers[name].parts.dry

    def hung(self, pool: Pool[PoolConfig], backend: Backend) -> None:
        self.all.hung(pool.name, backend)

    # -- building --------------------------------------------------------------------------------------------------

    def _scaler(self, pool: Pool[PoolConfig], settings: ScalingConfig) -> PoolScaler:
        fleet, backoff, events = Fleet(), Backoff(), Events(self._clock)
        times = StartTimes(settings.cold_start, settings.start_timeout)
        dry = settings.actuator.kind == "dry_run"
        lives = Lives(
            pool,
            fleet,
            BringUp(self._client),
            _terms(settings),
            announce=lambda found: self._registrar.announce(pool.name, SOURCE, found),
            times=times,
            backoff=backoff,
            clock=self._clock,
            on_ready=lambda: self._on_ready(pool),
        )
        capacity = settings.capacity
        configured = Rates(capacity.requests_per_s, capacity.prefill_tokens_per_s, capacity.decode_tokens_per_s)
        parts = Parts(
            pool=pool,
            decider=_decider(settings, events),
            actuator=_actuator(pool.name, settings.actuator),
            meter=Meter(pool, self._metrics, self._clock(), slo_ttft_s=settings.objective.ttft, configured=configured),
            fleet=fleet,
            lives=lives,
            times=times,
            backoff=backoff,
            leadership=self._leadership(pool.name, settings),
            events=events,
            queries=Queries(
                {name: Query(one.url, one.query, one.token) for name, one in settings.prometheus.items()}, self._clock
            ),
            decisions=Decisions(pool.name),
            keeper=Keeper(
                pool.name,
                _history(pool.name, settings),
                self._wall,
                paused=lambda: self.all.pauses(pool.name),
                on_paused=self.all.still_paused,
            ),
            most=_most(settings),
            dry=dry,
        )
        return PoolScaler(
            parts,
            _pace(settings),
            clock=self._clock,
            wall=self._wall,
            paused=lambda: self.all.is_paused(pool.name),
        )

    def _change(self, scaler: PoolScaler, before: ScalingConfig, settings: ScalingConfig) -> None:
        """New settings for a loop that runs. What did not change keeps what it knows."""
        parts, old = scaler.parts, scaler.parts.decider
        new = _decider(settings, parts.events)
        policies = old.policies if settings.policies == before.policies else new.policies
        stabiliser = old.stabiliser if settings.behavior == before.behavior else new.stabiliser
        carry_over(old.guardrails, new.guardrails)
        parts.keeper.take(old)
        parts.decider = Decider(policies, stabiliser, new.guardrails)
        parts.lives.terms = _terms(settings)
        parts.times.configured_s, parts.times.at_least_s = settings.cold_start, settings.start_timeout
        parts.meter.slo_ttft_s = settings.objective.ttft
        parts.most = _most(settings)
        scaler.pace = _pace(settings)
        scaler.hurry()

    def _leadership(self, pool: str, settings: ScalingConfig) -> Leadership:
        url = settings.redis
        if not url:
            return Alone()
        if (pool, url) not in self._redis:
            # Not above: its package is an extra.
            from llmproxy.stores.redis_client import RedisClient

            self._redis[pool, url] = RedisClient(url)
        return RedisLeadership(pool, self._redis[pool, url].evaluate, clock=self._clock)


def _decider(settings: ScalingConfig, events: Events) -> Decider:
    named = [(one.name, one.options) for one in settings.policies] or [("demand", None), ("forecast", None)]
    policies: list[ScalingPolicy] = [build(name, options) for name, options in named]
    limits = Limits(settings.min, settings.max, settings.changes_per_hour, _budget(settings))
    up, down = settings.behavior.up, settings.behavior.down
    behavior = Behavior(
        Direction(up.window or 0.0, up.max_step, up.period),
        Direction(_DOWN_WINDOW_S if down.window is None else down.window, down.max_step, down.period),
    )
    return Decider([*policies, events, Activation()], Stabiliser(behavior), Guardrails(limits))


def _budget(settings: ScalingConfig) -> Budget | None:
    budget = settings.budget
    if budget is None:
        return None
    return Budget(budget.price_per_hour, budget.per_hour, budget.per_month, budget.currency, budget.alert_at)


def _most(settings: ScalingConfig) -> int:
    """Instances, whatever they are for: those of the warm pool cost as much as those that serve."""
    budget = settings.budget
    if budget is None or budget.per_hour is None:
        return settings.max
    # The sliver lets 4 replicas at 2.5 be had for 10 in spite of rounding.
    return min(settings.max, int(budget.per_hour / budget.price_per_hour + 1e-9))


def _terms(settings: ScalingConfig) -> Terms:
    prompts = () if settings.warm_up is None else tuple(read_prompts(Path(settings.warm_up)))
    return Terms(
        drain_s=settings.drain,
        replace_after_s=settings.replace_after,
        max_concurrency=settings.max_concurrency,
        price_per_hour=settings.budget.price_per_hour if settings.budget is not None else 0.0,
        warm_size=settings.warm_pool.size,
        warm_by_sleep=settings.warm_pool.kind == "sleep",
        prompts=prompts,
    )


def _pace(settings: ScalingConfig) -> Pace:
    look_s = min(0.5, settings.interval / 2)
    poll_s = _WEBHOOK_POLL_S if settings.actuator.kind == "webhook" else look_s
    return Pace(settings.interval, min(poll_s, settings.interval), look_s)


def _actuator(pool: str, config: ActuatorConfig) -> Actuator:
    if config.kind == "dry_run":
        return DryRun(pool)
    if config.kind == "webhook":
        return WebhookActuator(pool, WebhookOptions(config.url, config.secret, config.timeout))
    return ProcessActuator(
        pool,
        ProcessOptions(
            command=config.command,
            directory=_directory(pool, config),
            ports=port_range(config.ports) if config.ports else None,
            gpus=config.gpus,
            env=config.env,
            stop_timeout_s=config.stop_timeout,
            log_max_bytes=config.log_max,
            on_exit_stop=config.on_exit == "stop",
        ),
    )


def _history(pool: str, settings: ScalingConfig) -> HistoryStore:
    if settings.history:
        return SqliteHistory(Path(settings.history))
    if settings.actuator.kind == "process":
        return SqliteHistory(_directory(pool, settings.actuator) / "history.db")
    return MemoryHistory()


def _directory(pool: str, config: ActuatorConfig) -> Path:
    return Path(config.directory) if config.directory else _state_home() / "llmproxy" / pool


def _state_home() -> Path:
    """Where programs keep what must survive them (XDG Base Directory Specification)."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
