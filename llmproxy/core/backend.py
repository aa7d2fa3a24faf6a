"""One backend: a frozen description, gauges that are replaced whole, and live counters."""

from dataclasses import dataclass, field
from enum import Enum

from llmproxy.core.board import Load, LocalLoad
from llmproxy.core.enums import plain


@plain
class Status(Enum):
    """Whether a backend may be given work. Written by the health registry only; the value is the label."""

    NEW = "new"
    """Never answered a probe yet: no traffic."""
    LOADING = "loading"
    """Refuses or says 503 since it was added: an engine on its way up, not a failure."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """Probes fail."""
    OPEN = "open"
    """The circuit breaker is open (passive failures)."""
    HALF_OPEN = "half_open"
    """The breaker lets one trial through at a time."""
    SLEEPING = "sleeping"
    """Asleep or paused although its /health says 200."""
    DRAINING = "draining"
    """No new work; what runs there finishes."""


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """Which GPU a backend runs on, and who knows of it: this host's driver, unless `agent` or `dcgm` is given."""

    device: int | None = None
    """As NVML (nvidia-smi) counts on its host."""
    uuid: str = ""
    agent: str = ""
    """Address of a `llmproxy gpu-agent`."""
    dcgm: str = ""
    """URL of a DCGM exporter's metrics."""


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """What the configuration (or discovery) says of a backend."""

    id: str
    """Label in logs, metrics and `X-LLMProxy-Backend`; never an address."""
    url: str
    """`http://host:port` or `https://host:port`, with an optional base path, no trailing slash."""
    weight: float = 1.0
    max_concurrency: int | None = None
    host: str = ""
    port: int = 0
    tls: bool = False
    base_path: str = ""
    ca_file: str | None = None
    """PEM file to verify an https:// backend with, instead of the system's store."""
    server_name: str = ""
    """The host name behind `host` where that is one of the name's addresses: what to verify the certificate
    against and to send as SNI and Host. Empty: `host` itself."""
    gpu: GpuSpec | None = None
    price_per_hour: float = 0.0
    tier: str = ""
    """Which of its pool's tiers of capacity it is of; empty where there are none."""
    spot: bool = False
    """It is rented at a spot price, and may be taken away."""
    prompt_tokens_max: int | None = None
    """Longer prompts are not sent there."""


@dataclass(frozen=True, slots=True)
class GpuGauges:
    """What was last read of a backend's GPU. None means unknown, never zero. `at` is monotonic seconds."""

    at: float
    utilization: float | None = None
    """Share of the time in which anything ran on it, 0 to 1."""
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    """Its clocks are held down by heat or a weak power supply (not by its ordinary power limit)."""
    ecc_errors: float | None = None
    """Uncorrected memory errors since the driver was loaded."""
    mig: bool | None = None
    """It is split into MIG instances."""


@dataclass(frozen=True, slots=True)
class Timings:
    """A histogram of seconds, without its buckets; both grow as long as the engine lives."""

    sum_s: float
    count: float


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a backend last said of itself. None (of `models`: none) means unknown, never zero. `at` is monotonic
    seconds. Counters grow as long as the engine lives."""

    at: float
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    """Share of the KV cache that running requests hold, 0 to 1."""
    kv_tokens: int | None = None
    """Tokens that fit into the KV cache. Known for as long as the backend is there, as `models` are."""
    sleeping: bool | None = None
    models: tuple[str, ...] = ()
    """The names it answers to, LoRA adapters among them."""
    loras: tuple[str, ...] | None = None
    """LoRA adapters with requests there."""
    prefix_queries: float | None = None
    """Counter: prompt tokens looked up in the prefix cache."""
    prefix_hits: float | None = None
    """Counter: prompt tokens found there."""
    preemptions: float | None = None
    """Counter."""
    prompt_tokens: float | None = None
    """Counter, cached ones included."""
    generation_tokens: float | None = None
    """Counter."""
    heartbeat: float | None = None
    """Changes while the engine computes, and means nothing else."""
    ttft: Timings | None = None
    itl: Timings | None = None
    gpu: GpuGauges | None = None
    max_age_s: float = float("inf")
    """How long it counts. What is older is unknown."""

    def is_fresh(self, now: float) -> bool:
        """Whether it still counts at `now`. Its `gpu` has an age of its own."""
        return now - self.at <= self.max_age_s

    def fresh_gpu(self, now: float) -> GpuGauges | None:
        """What is known of the GPU at `now`."""
        gpu = self.gpu
        return gpu if gpu is not None and now - gpu.at <= self.max_age_s else None


@dataclass(slots=True, eq=False)
class Backend:
    """A live backend. Identity is the object; `spec.id` is its name.

    `weight` is the effective weight (the spec's, scaled down while slow-starting).
    """

    spec: BackendSpec
    load: Load = field(default_factory=LocalLoad)
    status: Status = Status.NEW
    weight: float = 1.0
    gauges: Gauges | None = None

    def __post_init__(self) -> None:
        self.weight = self.spec.weight

    @property
    def id(self) -> str:
        return self.spec.id

    def known(self, now: float) -> Gauges | None:
        """Its gauges, or None when they are too old to count."""
        gauges = self.gauges
        return gauges if gauges is not None and gauges.is_fresh(now) else None

    @property
    def has_room(self) -> bool:
        """Whether another request fits under `max_concurrency`."""
        limit = self.spec.max_concurrency
        return limit is None or self.load.in_flight < limit

    def __repr__(self) -> str:
        return f"<Backend {self.spec.id} {self.status.value} in_flight={self.load.in_flight}>"
