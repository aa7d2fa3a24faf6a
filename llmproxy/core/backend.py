"""One backend: a frozen description, gauges that are replaced whole, and live counters."""

from dataclasses import dataclass, field
from enum import Enum

from llmproxy.core.board import Load, LocalLoad


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


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a backend last said of itself. None means unknown, never zero. `at` is monotonic seconds."""

    at: float
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    """Share of the KV cache that running requests hold, 0 to 1."""
    kv_tokens: int | None = None
    """Tokens that fit into the KV cache."""
    sleeping: bool | None = None
    models: tuple[str, ...] = ()


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

    @property
    def has_room(self) -> bool:
        """Whether another request fits under `max_concurrency`."""
        limit = self.spec.max_concurrency
        return limit is None or self.load.in_flight < limit

    def __repr__(self) -> str:
        return f"<Backend {self.spec.id} {self.status.value} in_flight={self.load.in_flight}>"
