"""From a pool's `scaling` to the parts of its loop: which classes stand behind it, and with which figures."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from llmproxy.config.capacity_tiers import CapacityTierConfig
from llmproxy.config.scaling import ActuatorConfig, ScalingConfig, places, port_range
from llmproxy.control.actuators.base import Actuator
from llmproxy.control.actuators.dry_run import DryRun
from llmproxy.control.actuators.engine_kinds import EngineKind, ProcessOptions
from llmproxy.control.actuators.process import ProcessActuator
from llmproxy.control.actuators.webhook import WebhookActuator, WebhookOptions
from llmproxy.control.scaling.bring_up import read_prompts
from llmproxy.control.scaling.events import Activation, Events
from llmproxy.control.scaling.parts import Pace
from llmproxy.control.scaling.queries import Query
from llmproxy.control.scaling.terms import Terms, TierTerms
from llmproxy.policy.scaling.base import Rates, ScalingPolicy
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.registry import build
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser
from llmproxy.policy.scaling.tiers import Tier, Tiers
from llmproxy.stores.history import HistoryStore, MemoryHistory, SqliteHistory
from llmproxy.stores.history_redis import RedisHistory

KEY_PREFIX = "llmproxy"
"""What the names of all keys in Redis begin with."""
_WEBHOOK_POLL_S = 5.0
_DOWN_WINDOW_S = 300.0


def decider_of(settings: ScalingConfig, events: Events) -> Decider:
    named = [(one.name, one.options) for one in settings.policies] or [("demand", None), ("forecast", None)]
    policies: list[ScalingPolicy] = [build(name, options) for name, options in named]
    most = _max(settings)
    limits = Limits(min(settings.min, most), most, settings.changes_per_hour, budget_of(settings))
    up, down = settings.behavior.up, settings.behavior.down
    behavior = Behavior(
        Direction(up.window or 0.0, up.max_step, up.period),
        Direction(_DOWN_WINDOW_S if down.window is None else down.window, down.max_step, down.period),
    )
    tiers = Tiers(_tiers(settings)) if settings.tiers_of_capacity else None
    return Decider([*policies, events, Activation()], Stabiliser(behavior), Guardrails(limits), tiers)


def _tiers(settings: ScalingConfig) -> list[Tier]:
    return [
        Tier(one.name, one.worth, _most_of_tier(settings, one), _price(settings, one))
        for one in settings.tiers_of_capacity
    ]


def _most_of_tier(settings: ScalingConfig, tier: CapacityTierConfig) -> int | None:
    """Engines on this machine are no more than the tier's own sets of GPUs: asking for more only fails."""
    sets = len(tier.gpus or settings.actuator.gpus) if settings.actuator.kind == "process" else 0
    return min(tier.max or sets, sets) if sets else tier.max


def _max(settings: ScalingConfig) -> int:
    """The same for all of them together, and by the range of ports."""
    return min(settings.max, places(settings) or settings.max)


def _price(settings: ScalingConfig, tier: CapacityTierConfig | None) -> float:
    if tier is not None and tier.price_per_hour is not None:
        return tier.price_per_hour
    return settings.budget.price_per_hour if settings.budget is not None else 0.0


def _cheapest(settings: ScalingConfig) -> float:
    """What a replica costs at least, in pools with a budget."""
    return min([_price(settings, one) for one in settings.tiers_of_capacity] or [_price(settings, None)])


def budget_of(settings: ScalingConfig) -> Budget | None:
    budget = settings.budget
    if budget is None:
        return None
    # A tier's price of 0 makes it no cheaper than this to count with: what is spent is counted by tier.
    return Budget(
        _cheapest(settings) or budget.price_per_hour,
        budget.per_hour,
        budget.per_month,
        budget.currency,
        budget.alert_at,
    )


def most_of(settings: ScalingConfig) -> int:
    """Instances, whatever they are for: those of the warm pool cost as much as those that serve."""
    budget = settings.budget
    if budget is None or budget.per_hour is None:
        return _max(settings)
    # The sliver lets 4 replicas at 2.5 be had for 10 in spite of rounding.
    cheapest = _cheapest(settings)
    return min(_max(settings), int(budget.per_hour / cheapest + 1e-9)) if cheapest else _max(settings)


def most_per_hour(settings: ScalingConfig) -> float:
    """What they may cost in all, where they differ in price."""
    budget = settings.budget
    return budget.per_hour if budget is not None and budget.per_hour is not None else math.inf


def terms_of(settings: ScalingConfig) -> Terms:
    warm_up = settings.warm_up
    prompts = () if warm_up.file is None else tuple(read_prompts(Path(warm_up.file)))
    return Terms(
        drain_s=settings.drain,
        replace_after_s=settings.replace_after,
        warm_size=settings.warm_pool.size,
        warm_by_sleep=settings.warm_pool.kind == "sleep",
        prompts=prompts,
        hottest=warm_up.hottest,
        warm_up_s=warm_up.within,
        tiers=_tier_terms(settings),
    )


def _tier_terms(settings: ScalingConfig) -> dict[str, TierTerms]:
    if not settings.tiers_of_capacity:
        return {"": TierTerms(price_per_hour=_price(settings, None), max_concurrency=settings.max_concurrency)}
    return {
        one.name: TierTerms(
            weight=one.worth,
            price_per_hour=_price(settings, one),
            spot=one.spot,
            max_concurrency=one.max_concurrency or settings.max_concurrency,
            prompt_tokens_max=one.prompt_tokens_max,
        )
        for one in settings.tiers_of_capacity
    }


def pace_of(settings: ScalingConfig) -> Pace:
    look_s = min(0.5, settings.interval / 2)
    poll_s = _WEBHOOK_POLL_S if settings.actuator.kind == "webhook" else look_s
    return Pace(settings.interval, min(poll_s, settings.interval), look_s)


def actuator_of(pool: str, settings: ScalingConfig, paused: Callable[[], bool]) -> Actuator:
    config = settings.actuator
    if config.kind == "dry_run":
        return DryRun(pool)
    if config.kind == "webhook":
        return WebhookActuator(pool, WebhookOptions(config.url, config.secret, config.timeout), paused=paused)
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
            tiers={
                one.name: EngineKind(one.command or config.command, one.gpu, one.gpus or config.gpus, one.env)
                for one in settings.tiers_of_capacity
            },
        ),
    )


def history_of(pool: str, settings: ScalingConfig) -> HistoryStore:
    """Where what the autoscaler must not forget is kept."""
    if settings.history:
        return SqliteHistory(Path(settings.history))
    if settings.redis:
        return RedisHistory(settings.redis, prefix=KEY_PREFIX)
    if settings.actuator.kind == "process":
        return SqliteHistory(_directory(pool, settings.actuator) / "history.db")
    return MemoryHistory()


def _directory(pool: str, config: ActuatorConfig) -> Path:
    return Path(config.directory) if config.directory else _state_home() / "llmproxy" / pool


def _state_home() -> Path:
    """Where programs keep what must survive them (XDG Base Directory Specification)."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"


def configured_of(settings: ScalingConfig) -> Rates:
    capacity = settings.capacity
    return Rates(capacity.requests_per_s, capacity.prefill_tokens_per_s, capacity.decode_tokens_per_s)


def queries_of(settings: ScalingConfig) -> dict[str, Query]:
    return {name: Query(one.url, one.query, one.token) for name, one in settings.prometheus.items()}
