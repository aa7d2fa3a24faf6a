"""The one table of metrics. The exposition and the reference page (docs/metrics.md) are made from it."""

from dataclasses import dataclass
from enum import Enum

from llmproxy.telemetry.cost import COST
from llmproxy.telemetry.gpu import GPU
from llmproxy.telemetry.scaling import SCALING


class Kind(Enum):
    """A metric's Prometheus type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: the full name, its type, its label names in order, what it means, and a histogram's upper bounds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_TTFT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_ITL_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0)
_DURATION_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_QUEUE_S = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_OVERHEAD_S = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

_POOL = ("pool",)
_MODEL = ("pool", "model")
_BACKEND = ("pool", "backend")

TABLE: tuple[Metric, ...] = (
    # Requests
    Metric(
        "llmproxy_requests_total",
        Kind.COUNTER,
        "Requests answered, by the status the client got (499: the client left before it got one).",
        ("pool", "model", "backend", "status"),
    ),
    Metric("llmproxy_in_flight", Kind.GAUGE, "Requests at a backend whose answer has not ended.", _BACKEND),
    Metric(
        "llmproxy_time_to_first_token_seconds",
        Kind.HISTOGRAM,
        "Of streamed answers, from the request's arrival to the first byte of the body (TTFT).",
        _MODEL,
        _TTFT_S,
    ),
    Metric(
        "llmproxy_inter_token_latency_seconds",
        Kind.HISTOGRAM,
        "Gap between two events of a stream (ITL). An engine may put several tokens into one event.",
        _MODEL,
        _ITL_S,
    ),
    Metric(
        "llmproxy_request_duration_seconds",
        Kind.HISTOGRAM,
        "From a request's arrival to the end of its answer (E2E latency).",
        _MODEL,
        _DURATION_S,
    ),
    Metric(
        "llmproxy_queue_seconds",
        Kind.HISTOGRAM,
        "Wait for a place on a backend, of the requests that had to wait.",
        _POOL,
        _QUEUE_S,
    ),
    Metric("llmproxy_queue_waiting", Kind.GAUGE, "Requests waiting for a place on a backend.", _POOL),
    Metric(
        "llmproxy_queue_waiting_by_priority",
        Kind.GAUGE,
        "The same by priority: `high`, `normal`, `low`, `batch`.",
        ("pool", "priority"),
    ),
    Metric(
        "llmproxy_heartbeats_total",
        Kind.COUNTER,
        "Comments sent to streams that waited for their first token (`queue.heartbeat`).",
        _POOL,
    ),
    Metric(
        "llmproxy_proxy_overhead_seconds",
        Kind.HISTOGRAM,
        "The proxy's own time: from a request being read whole until it was handed to a backend, without the queue.",
        (),
        _OVERHEAD_S,
    ),
    Metric("llmproxy_prompt_tokens_total", Kind.COUNTER, "Prompt tokens, as engines report them in `usage`.", _MODEL),
    Metric(
        "llmproxy_cached_prompt_tokens_total",
        Kind.COUNTER,
        "Prompt tokens that engines say they took from their prefix cache.",
        _MODEL,
    ),
    Metric(
        "llmproxy_completion_tokens_total",
        Kind.COUNTER,
        "Generated tokens, from engines' `usage`; for streams without it, an estimate from the number of events.",
        _MODEL,
    ),
    Metric(
        "llmproxy_routing_decisions_total",
        Kind.COUNTER,
        "Choices of a backend, one for each attempt, by the reason the policy gives (docs/routing.md lists them). "
        "Policies that know one reason only give none.",
        ("pool", "reason"),
    ),
    # Who asked, where a key is required
    Metric(
        "llmproxy_auth_total",
        Kind.COUNTER,
        "Requests whose key was looked at, by what it was: `ok`, `anonymous`, `missing`, `unknown`, `expired`, "
        "`revoked`, `token` (a bad one), `forbidden` (good, but of no tenant or tier there is), `unavailable` (it "
        "could not be checked).",
        ("result",),
    ),
    Metric("llmproxy_auth_store_age_seconds", Kind.GAUGE, "How long ago the copy of the key store was last confirmed."),
    Metric(
        "llmproxy_tenant_requests_total", Kind.COUNTER, "Requests answered, by tenant and status.", ("tenant", "status")
    ),
    Metric(
        "llmproxy_tenant_tokens_total", Kind.COUNTER, "Tokens, `prompt` or `completion`, by tenant.", ("tenant", "kind")
    ),
    # What went wrong
    Metric(
        "llmproxy_attempts_total",
        Kind.COUNTER,
        "Attempts at a backend, by how they ended (`ok`, `refused`, `reset`, `busy`, ...).",
        ("pool", "backend", "outcome"),
    ),
    Metric(
        "llmproxy_retries_total",
        Kind.COUNTER,
        "Attempts made because an earlier one failed, by how that one ended.",
        ("pool", "cause"),
    ),
    Metric(
        "llmproxy_hedges_total",
        Kind.COUNTER,
        "Second attempts beside one that is late (`hedge`): `sent`, and of those the quicker ones, `won`.",
        ("pool", "event"),
    ),
    Metric("llmproxy_abandoned_total", Kind.COUNTER, "Requests whose client left before their answer ended.", _POOL),
    Metric(
        "llmproxy_shed_total", Kind.COUNTER, "Requests answered 503 before any engine saw them.", ("pool", "reason")
    ),
    Metric(
        "llmproxy_errors_total",
        Kind.COUNTER,
        "Errors the proxy answered with, by code and by who has to act (`client`, `proxy`, `upstream`).",
        ("code", "blame"),
    ),
    # Backends
    Metric("llmproxy_backend_up", Kind.GAUGE, "1 while a backend is healthy and may be given any work.", _BACKEND),
    Metric(
        "llmproxy_backend_status",
        Kind.GAUGE,
        "1 for the status a backend is in, 0 for the others.",
        ("pool", "backend", "state"),
    ),
    Metric(
        "llmproxy_breaker_state", Kind.GAUGE, "Circuit breaker of a backend: 0 closed, 1 half-open, 2 open.", _BACKEND
    ),
    Metric("llmproxy_backend_weight", Kind.GAUGE, "Effective weight (scaled down during slow start).", _BACKEND),
    Metric(
        "llmproxy_backend_max_concurrency", Kind.GAUGE, "Configured `max_concurrency`, where there is one.", _BACKEND
    ),
    Metric(
        "llmproxy_probes_total",
        Kind.COUNTER,
        "Active health probes, by what they saw (`ok`, `refused`, `loading`, `sleeping`, `failed`).",
        ("pool", "backend", "result"),
    ),
    # What the engines and their GPUs say of themselves; no row while it is unknown
    Metric("llmproxy_backend_running", Kind.GAUGE, "Requests that the engine computes, whoever sent them.", _BACKEND),
    Metric("llmproxy_backend_waiting", Kind.GAUGE, "Requests that wait inside the engine.", _BACKEND),
    Metric("llmproxy_backend_kv_usage_ratio", Kind.GAUGE, "Share of the engine's KV cache in use.", _BACKEND),
    Metric("llmproxy_backend_kv_tokens", Kind.GAUGE, "Tokens that fit into the engine's KV cache.", _BACKEND),
    Metric("llmproxy_backend_gauges_age_seconds", Kind.GAUGE, "How long ago a backend's gauges were read.", _BACKEND),
    *(Metric(f"llmproxy_backend_{row.name}", Kind.GAUGE, row.help, _BACKEND) for row in GPU),
    Metric(
        "llmproxy_scrapes_total",
        Kind.COUNTER,
        "Reads of a backend's gauges, by source (`engine`, `nvml`, `agent`, `dcgm`) and result (`ok`, `timeout`, "
        "`failed`).",
        ("pool", "backend", "source", "result"),
    ),
    Metric(
        "llmproxy_backend_hangs_total",
        Kind.COUNTER,
        "How often a backend was found to hang: with work, and without progress for `progress.stalled_after`.",
        _BACKEND,
    ),
    # Limits
    Metric(
        "llmproxy_limit_verdicts_total",
        Kind.COUNTER,
        "Requests at their limits, by tier: `passed`, or what was short (`requests`, `tokens`, `money`, `concurrency`, "
        "`store`).",
        ("tier", "verdict"),
    ),
    Metric(
        "llmproxy_limit_decisions_total",
        Kind.COUNTER,
        "With limits in Redis, who decided: `redis`, `ahead` (out of what it had granted a busy tenant before), or "
        "while it was out of reach `local`, `allow`, `deny`.",
        ("by",),
    ),
    Metric("llmproxy_limit_store_up", Kind.GAUGE, "With limits in Redis, 1 while it is used."),
    Metric(
        "llmproxy_limit_store_links_total",
        Kind.COUNTER,
        "Links to the Redis of limits that came `up`, and why they went (`timeout`, `lost`, `refused`, `closed`).",
        ("event",),
    ),
    Metric("llmproxy_limit_proxies", Kind.GAUGE, "Proxies that share the Redis of limits, as last seen."),
    # The autoscaler
    *(
        Metric(f"llmproxy_scaling_{row.name}", Kind.COUNTER if row.counts else Kind.GAUGE, row.help, row.labels)
        for row in SCALING
    ),
    # Money; no row where no price is known
    *(Metric(f"llmproxy_{row.name}", Kind.COUNTER if row.counts else Kind.GAUGE, row.help, row.labels) for row in COST),
    # The process
    Metric("llmproxy_connections", Kind.GAUGE, "Open connections, `downstream` or `upstream`.", ("side",)),
    Metric("llmproxy_connections_opened_total", Kind.COUNTER, "Connections opened, by side.", ("side",)),
    Metric("llmproxy_connections_refused_total", Kind.COUNTER, "Client connections refused: too many at once."),
    Metric("llmproxy_connections_reused_total", Kind.COUNTER, "Attempts sent on an idle connection to a backend."),
    Metric("llmproxy_buffered_body_bytes", Kind.GAUGE, "Request bodies held in memory."),
    Metric("llmproxy_event_loop_lag_seconds", Kind.HISTOGRAM, "How late the coarse timer ran.", (), _LAG_S),
    Metric("llmproxy_access_log_dropped_total", Kind.COUNTER, "Access log lines lost: the disk or reader was stuck."),
    Metric(
        "llmproxy_config_reloads_total", Kind.COUNTER, "Reloads of the configuration, `ok` or `failed`.", ("result",)
    ),
    Metric("llmproxy_config_last_reload_successful", Kind.GAUGE, "1 when the newest configuration file was accepted."),
    Metric(
        "llmproxy_config_last_reload_timestamp_seconds",
        Kind.GAUGE,
        "When the running configuration was loaded (Unix time).",
    ),
    Metric("llmproxy_build_info", Kind.GAUGE, "Always 1; the running version.", ("version",)),
)


def by_name() -> dict[str, Metric]:
    """The table by metric name."""
    return {metric.name: metric for metric in TABLE}
