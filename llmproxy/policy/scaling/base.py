"""What scaling policies are told, and what they answer."""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

UNKNOWN: Final = None
"""A signal that nobody measured, or whose source has gone stale. Never zero."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of one latency, in seconds, over the requests that ended lately."""

    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """What comes in, or what one replica sustains: in each of the three dimensions that fill an engine."""

    requests_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    """Prompt tokens that have to be computed: what the prefix cache holds is left out where that is known."""
    decode_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """Work that arrives, whether or not it is served: averages over the last 10 s and 60 s, and the standard deviation
    of single seconds over the last five minutes, each in requests and tokens a second."""

    last_10s: Rates = field(default_factory=Rates)
    last_60s: Rates = field(default_factory=Rates)
    deviation_1s: Rates = field(default_factory=Rates)


@dataclass(frozen=True, slots=True)
class TierState:
    """One tier of capacity at this moment. `demand` (of the last 60 s) and `waiting` are of the requests whose prompt
    fits no smaller tier. `leaving` still serve, until another does in their place. `avoided`: its starts have failed
    lately, and of `starting` are those that exist alone."""

    name: str
    ready: int = 0
    starting: int = 0
    leaving: int = 0
    waiting: int = 0
    demand: Rates = field(default_factory=Rates)
    avoided: bool = False

    @property
    def actual(self) -> int:
        return self.ready + self.starting


@dataclass(frozen=True, slots=True)
class Signals:
    """A pool, as measured at one moment. None means unknown; rates are per second, shares lie in [0, 1].

    `now` is monotonic seconds, as everywhere; `unix_s` is the wall clock, for what goes by the calendar.
    """

    now: float
    unix_s: float | None = None

    ready: int = 0
    """Replicas that serve."""
    starting: int = 0
    """Replicas that were asked for and do not serve yet: capacity on its way."""
    draining: int = 0
    """Let go, and not gone yet."""
    sleeping: int = 0

    queue_depth: int | None = None
    """Requests that wait for a backend with room."""
    queue_wait_s: float | None = None
    """How long the one that has waited longest has waited."""
    in_flight: int | None = None
    """Requests at backends; those who wait are not among them."""
    arrivals: int | None = None
    """Requests since the signals before these."""
    demand: Demand = field(default_factory=Demand)
    sustainable: Rates = field(default_factory=Rates)
    """What one replica can serve (`capacity`), learned or configured."""

    prompt_tokens_per_s: float | None = None
    generated_tokens_per_s: float | None = None
    ttft: Percentiles = field(default_factory=Percentiles)
    e2e: Percentiles = field(default_factory=Percentiles)
    error_rate: float | None = None
    """Share of requests that failed upstream."""
    shed_rate: float | None = None
    """Share of requests turned away for want of room."""
    slo_miss_rate: float | None = None
    """Share of requests of the last five minutes that missed the pool's service level objective."""

    gpu_utilization: float | None = None
    gpu_memory: float | None = None
    kv_usage: float | None = None
    cpu: float | None = None
    memory: float | None = None
    cold_start_s: float | None = None
    """From asking for a replica to its first token: configured, or learned from observed starts."""
    queries: tuple[tuple[str, float], ...] = ()
    """Answers of external queries (PromQL) by name; those without an answer are left out."""
    tiers: tuple[TierState, ...] = ()
    """The same replicas by tier of capacity, in the order of the configuration; none where the pool has no tiers."""
    cost_per_hour: float | None = None
    """Of all that exists. None: each replica that is counted here does, and all cost the same."""
    leaving_per_hour: float = 0.0
    """Of those that were let go and are not gone yet; of pools with tiers alone."""

    @property
    def actual(self) -> int:
        """Replicas that serve or will: what `Wanted.replicas` is measured against."""
        return self.ready + self.starting


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many replicas (ready and starting together) a policy wants, and why, in words for operators."""

    replicas: int
    reason: str
    policy: str
    cap: int | None = None
    """An upper bound that this policy sets on all (`schedule`'s max); None sets none."""
    for_memory: bool = False
    """What is short is room for tokens: generating them, or the KV cache they lie in."""
    need: float | None = None
    """The same before it was rounded up and held; None where nobody knows."""
    is_floor: bool = False
    """Only a bound from below: while nobody has another opinion, it is no reason to let a replica go."""


class ScalingPolicy(Protocol):
    """One opinion on how many replicas there should be. Combined by `combine`: the highest wins.

    Called with every evaluation in order of time. None: no opinion now (a condition does not hold, a signal is
    unknown). A policy never counts on being obeyed: guardrails, a pause or another policy may decide otherwise.
    """

    options_type: ClassVar[type]

    def want(self, signals: Signals, now: float) -> Wanted | None: ...
