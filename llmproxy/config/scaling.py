"""`pools.NAME.scaling`: how many replicas there should be, and who makes them come and go."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from llmproxy.config.capacity_tiers import CapacityTierConfig, check_tiers, engine_command
from llmproxy.config.section import Section
from llmproxy.config.units import MIB, Duration, Ratio, Size
from llmproxy.config.values import Name, OutputFile, RedisAddress
from llmproxy.config.warm_up import WarmUpConfig


class ScalingPolicyConfig(Section):
    """`{NAME: options}`, or the name alone. The policy itself checks its options."""

    name: str = Field(description="Name of the scaling policy.")
    options: Any = Field(None, description="The policy's own options.")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and value.keys() - {"name", "options"}:
            if len(value) != 1:
                raise ValueError("one policy an entry, such as `- rules: {...}`")
            [(name, options)] = value.items()
            return {"name": name, "options": options}
        return value


class DirectionConfig(Section):
    window: Duration | None = Field(
        None, description="Only to what was wanted for all of this time. By default 0 for up and 5m for down."
    )
    max_step: int | None = Field(None, ge=1, description="Most replicas added (removed) within `period`.")
    period: Duration = Field(60.0, gt=0, description="The time that `max_step` is about.")


class BehaviorConfig(Section):
    up: DirectionConfig = Field(DirectionConfig(), description="How fast replicas are added.")
    down: DirectionConfig = Field(DirectionConfig(), description="How fast they are removed.")


class WarmPoolConfig(Section):
    size: int = Field(0, ge=0, description="Replicas kept ready beside those that serve, within `max`.")
    kind: Literal["sleep", "standby"] = Field(
        "standby",
        description="`sleep`: put to sleep (vLLM's sleep mode, which needs its development mode); `standby`: loaded.",
    )


class BudgetConfig(Section):
    price_per_hour: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="What one replica costs in an hour, in `currency`; `check` warns where it is left out.",
    )
    per_hour: float | None = Field(None, ge=0, allow_inf_nan=False, description="Most to spend in an hour.")
    per_month: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Most to spend in a calendar month (UTC)."
    )
    currency: str = Field("USD", description="What prices are in, for messages.")
    alert_at: tuple[Annotated[Ratio, Field(gt=0)], ...] = Field(
        (0.5, 0.8, 1.0), description="Shares of a budget at which to say so."
    )


class CapacityConfig(Section):
    requests_per_s: float | None = Field(None, gt=0, description="Requests a replica sustains in a second.")
    prefill_tokens_per_s: float | None = Field(None, gt=0, description="Prompt tokens it computes in a second.")
    decode_tokens_per_s: float | None = Field(None, gt=0, description="Tokens it generates in a second.")


class ObjectiveConfig(Section):
    ttft: Duration = Field(2.0, gt=0, description="A request whose first token takes longer has missed the objective.")


class QueryConfig(Section):
    url: str = Field(description="Prometheus' URL, without `/api/v1/query`.")
    query: str = Field(min_length=1, description="PromQL with one number as its answer.")
    token: str = Field("", repr=False, description="Bearer token for it.")

    @field_validator("url")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        return _http_url(value)


class ActuatorConfig(Section):
    kind: Literal["process", "webhook", "dry_run"] = Field(
        description="`process`: engines on this machine; `webhook`: your own program; `dry_run`: change nothing."
    )
    command: str = Field(
        "", description="`process`: how to start an engine, with `{port}` (and `{id}`, `{gpus}`) put in. No shell."
    )
    ports: str = Field("", description="`process`: first and last port, such as `8101-8116`; any free one by default.")
    gpus: tuple[str, ...] = Field(
        (), description='`process`: sets of GPUs, one an engine, such as `["0", "1", "2,3"]` (CUDA_VISIBLE_DEVICES).'
    )
    env: dict[str, str] = Field(default_factory=dict, description="`process`: further environment variables.")
    directory: OutputFile | None = Field(
        None, description="`process`: for the state file and logs. Default: `~/.local/state/llmproxy/POOL`."
    )
    stop_timeout: Duration = Field(30.0, description="`process`: from SIGTERM to SIGKILL.")
    log_max: Size = Field(50 * MIB, description="`process`: how long an engine's log may get.")
    on_exit: Literal["keep", "stop"] = Field(
        "keep", description="`process`: when the proxy ends, engines go on for the next one, or end too."
    )
    url: str = Field("", description="`webhook`: where to send messages.")
    secret: str = Field("", repr=False, description="`webhook`: what messages are signed with (HMAC-SHA256).")
    timeout: Duration = Field(10.0, gt=0, description="`webhook`: how long an answer may take.")

    @model_validator(mode="before")
    @classmethod
    def _named_alone(cls, value: Any) -> Any:
        return {"kind": value} if value == "dry_run" else value

    @field_validator("ports")
    @classmethod
    def _a_range(cls, value: str) -> str:
        if value:
            port_range(value)
        return value

    @field_validator("url")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        return _http_url(value) if value else value

    @field_validator("command")
    @classmethod
    def _splits(cls, value: str) -> str:
        return engine_command(value)

    @model_validator(mode="after")
    def _complete(self) -> "ActuatorConfig":
        if self.kind == "process" and not self.command:
            raise ValueError("kind process needs `command`")
        if self.kind == "webhook" and not (self.url and self.secret):
            raise ValueError("kind webhook needs `url` and `secret`")
        return self


class ScalingConfig(Section):
    min: int = Field(1, ge=0, description="Never fewer replicas. 0 lets the pool sleep: the first request waits.")
    max: int = Field(1, ge=1, description="Never more.")
    policies: tuple[ScalingPolicyConfig, ...] = Field(
        (), description="What says how many: the highest wins. `demand` and `forecast` when none is given."
    )
    interval: Duration = Field(5.0, ge=0.1, description="How often it is decided.")
    cold_start: Duration | None = Field(
        None, description="From starting a replica to its first token; learned from starts when absent."
    )
    start_timeout: Duration = Field(
        600.0, gt=0, description="A start that takes longer (and three times the learned time) has failed."
    )
    drain: Duration = Field(600.0, description="How long a replica that is to go may finish what it is at.")
    replace_after: Duration = Field(
        60.0, gt=0, description="One that should serve and is unhealthy or asleep for so long is replaced."
    )
    max_concurrency: int | None = Field(None, ge=1, description="Each replica's `max_concurrency`.")
    warm_up: WarmUpConfig = Field(
        WarmUpConfig(), description="What a new replica computes, one token each, before it serves."
    )
    behavior: BehaviorConfig = Field(BehaviorConfig(), description="How fast it goes up and down.")
    warm_pool: WarmPoolConfig = Field(WarmPoolConfig(), description="Replicas in reserve.")
    changes_per_hour: int | None = Field(None, ge=1, description="Most replicas added, and most removed, in an hour.")
    budget: BudgetConfig | None = Field(None, description="What it may cost.")
    tiers_of_capacity: tuple[CapacityTierConfig, ...] = Field(
        (), description="Kinds of replicas, the smallest first, where they are not all alike."
    )
    capacity: CapacityConfig = Field(
        CapacityConfig(), description="What one replica sustains, until it has been learned from traffic."
    )
    objective: ObjectiveConfig = Field(ObjectiveConfig(), description="What counts as served in time.")
    prometheus: dict[Name, QueryConfig] = Field(
        default_factory=dict,
        description="Outside signals, `NAME: {url, query}`: conditions call them `prometheus.NAME`. One alone may be "
        "written `{url, query}`, without a name: `prometheus.query`.",
    )
    history: OutputFile | None = Field(
        None,
        description="SQLite file for what a restart must not cost: demand by the minute (for `forecast`), what a "
        "replica was seen to sustain, money spent, pauses. Default: in `redis` where that is given, beside the "
        "engines' state with kind `process`, else memory.",
    )
    redis: RedisAddress = Field(
        "",
        repr=False,
        description="URL of a Redis (`redis://host:6379/0`, `rediss://`, `sentinel://host:26379,host/name`, "
        "`cluster://host,host`): of the proxies that share it, one scales the pool, for the traffic of "
        "all of them.",
    )
    actuator: ActuatorConfig = Field(description="What makes replicas come and go.")

    @field_validator("prometheus", mode="before")
    @classmethod
    def _single_query(cls, value: Any) -> Any:
        is_single = isinstance(value, Mapping) and isinstance(value.get("url"), str) and "query" in value
        return {"query": value} if is_single else value

    @model_validator(mode="after")
    def _in_order(self) -> "ScalingConfig":
        if self.max < self.min:
            raise ValueError("max is less than min")
        check_tiers(self.tiers_of_capacity)
        return self


def port_range(text: str) -> tuple[int, int]:
    """First and last port of `8101-8116`. ValueError for anything else."""
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", text)
    first, last = (int(match[1]), int(match[2])) if match is not None else (0, 0)
    if not 0 < first <= last <= 65535:
        raise ValueError(f"{text!r} is no range of ports, such as 8101-8116")
    return first, last


def places(scaling: ScalingConfig) -> int | None:
    """How many engines this machine has GPUs and ports for, as configured; None: nothing bounds them."""
    actuator = scaling.actuator
    if actuator.kind != "process":
        return None
    bounds = []
    sets = [tier.gpus or actuator.gpus for tier in scaling.tiers_of_capacity] or [actuator.gpus]
    if all(sets):
        bounds.append(len(disjoint({gpus for one in sets for gpus in one})))
    if actuator.ports:
        first, last = port_range(actuator.ports)
        bounds.append(last - first + 1)
    return min(bounds, default=None)


def devices(gpus: str) -> list[str]:
    """Of a set as it is written: `0,1`."""
    return [device.strip() for device in gpus.split(",")]


def disjoint(sets: Iterable[str]) -> list[str]:
    """As many of the sets as can be in use together, the smallest first."""
    used: set[str] = set()
    found = []
    for gpus in sorted(sets, key=lambda one: (len(devices(one)), one)):
        if used.isdisjoint(devices(gpus)):
            used.update(devices(gpus))
            found.append(gpus)
    return found


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} must be an http:// or https:// URL")
    return value


def listed_backends(value: Any, info: ValidationInfo) -> Any:
    """Checks `backends`, as given or its default (a tuple), beside `scaling` and `discovery`, which stand before it in
    the pool."""
    if "scaling" not in info.data or "discovery" not in info.data:
        return value  # it is wrong, and that is said elsewhere
    if info.data["discovery"].file:
        return value
    scaling: ScalingConfig | None = info.data["scaling"]
    makes_its_own = scaling is not None and scaling.actuator.kind != "dry_run"
    if makes_its_own and value:
        raise ValueError("a pool whose replicas `scaling` starts lists none itself")
    if not makes_its_own and value == ():
        raise PydanticKnownError("missing")
    if not makes_its_own and value == []:
        raise PydanticKnownError("too_short", {"field_type": "Tuple", "min_length": 1, "actual_length": 0})
    return value
