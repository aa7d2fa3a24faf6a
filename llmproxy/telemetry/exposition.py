"""Prometheus text, made from the counters and the live objects when a scrape asks for it."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from llmproxy.core.backend import Status
from llmproxy.telemetry import text
from llmproxy.telemetry.metrics import Histogram, Metrics
from llmproxy.telemetry.table import TABLE, Kind

Rows = dict[tuple[str, ...], float]

logger = logging.getLogger(__name__)


class Exposition:
    """What `/metrics` answers: the table, the process and the Python build. Called on the loop, as the counters are."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reported: set[str] = set()
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        build = CollectorRegistry()
        PlatformCollector(registry=build)
        self._build = generate_latest(build)

    def render(self) -> tuple[bytes, str]:
        """The body and its content type."""
        table = "".join(self._lines()).encode()
        return table + generate_latest(self._process) + self._build, text.CONTENT_TYPE

    def _lines(self) -> Iterator[str]:
        rows = self._rows()
        histograms = self._histograms()
        for metric in TABLE:
            yield text.head(metric)
            if metric.kind is Kind.HISTOGRAM:
                yield from text.buckets(metric, histograms.get(metric.name, {}))
            else:
                yield from text.samples(metric, rows.get(metric.name, {}))

    def _rows(self) -> dict[str, Rows]:
        metrics = self._metrics
        rows = self._backend_rows()
        counters: dict[str, Mapping[Any, int]] = {
            "llmproxy_requests_total": metrics.requests.copy(),
            "llmproxy_attempts_total": metrics.attempts.copy(),
            "llmproxy_retries_total": metrics.retries.copy(),
            "llmproxy_routing_decisions_total": metrics.decisions.copy(),
            "llmproxy_shed_total": metrics.shed.copy(),
            "llmproxy_errors_total": metrics.errors.copy(),
            "llmproxy_probes_total": metrics.probes.copy(),
            "llmproxy_abandoned_total": metrics.abandoned.copy(),
            "llmproxy_heartbeats_total": metrics.heartbeats.copy(),
            "llmproxy_hedges_total": metrics.hedges.copy(),
            "llmproxy_config_reloads_total": metrics.reloads.copy(),
            "llmproxy_tenant_requests_total": metrics.tenants.requests,
            "llmproxy_tenant_tokens_total": metrics.tenants.tokens,
        }
        for name, counts in counters.items():
            _add(rows.setdefault(name, {}), counts)
        for series in list(metrics.all_series.values()):
            key = (series.pool, series.model)
            rows.setdefault("llmproxy_prompt_tokens_total", {})[key] = series.prompt_tokens
            rows.setdefault("llmproxy_cached_prompt_tokens_total", {})[key] = series.cached_tokens
            rows.setdefault("llmproxy_completion_tokens_total", {})[key] = series.completion_tokens
        rows["llmproxy_scaling_tier_requests_total"] = {
            key: seen.requests for key, seen in list(metrics.tier_prompts.items())
        }
        rows["llmproxy_config_last_reload_successful"] = {(): float(metrics.reload_ok)}
        if metrics.config_loaded_at:
            rows["llmproxy_config_last_reload_timestamp_seconds"] = {(): metrics.config_loaded_at}
        rows["llmproxy_build_info"] = {(metrics.version,): 1.0}
        for name in list(metrics.readers):
            self._ask(name, rows.setdefault(name, {}))
        return rows

    def _backend_rows(self) -> dict[str, Rows]:
        rows: dict[str, Rows] = {}

        def put(name: str, key: tuple[str, ...], value: float) -> None:
            rows.setdefault(name, {})[key] = value

        for pool in self._metrics.pools():
            # A counter that starts at its first event hides that event from rate(): show zero before.
            put("llmproxy_abandoned_total", (pool.name,), 0)
            put("llmproxy_heartbeats_total", (pool.name,), 0)
            for backend in pool.backends:
                key, status = (pool.name, backend.id), backend.status
                put("llmproxy_in_flight", key, backend.load.in_flight)
                put("llmproxy_backend_weight", key, backend.weight)
                put("llmproxy_backend_up", key, status is Status.HEALTHY)
                for state in Status:
                    put("llmproxy_backend_status", (*key, state.value), status is state)
                if backend.spec.max_concurrency is not None:
                    put("llmproxy_backend_max_concurrency", key, backend.spec.max_concurrency)
        return rows

    def _histograms(self) -> dict[str, dict[tuple[str, ...], Histogram]]:
        metrics = self._metrics
        series = [((one.pool, one.model), one) for one in list(metrics.all_series.values())]
        return {
            "llmproxy_time_to_first_token_seconds": {key: one.ttft for key, one in series},
            "llmproxy_inter_token_latency_seconds": {key: one.itl for key, one in series},
            "llmproxy_request_duration_seconds": {key: one.duration for key, one in series},
            "llmproxy_queue_seconds": {(pool,): waits for pool, waits in list(metrics.queue_waits.items())},
            "llmproxy_proxy_overhead_seconds": {(): metrics.overhead},
            "llmproxy_event_loop_lag_seconds": {(): metrics.loop_lag},
        }

    def _ask(self, name: str, rows: Rows) -> None:
        for reader in list(self._metrics.readers[name]):
            try:
                reading = reader()
                _add(rows, reading if isinstance(reading, Mapping) else {(): reading})
            except Exception:
                # One broken reader must not blind the others; saying so once is enough.
                if name not in self._reported:
                    self._reported.add(name)
                    logger.exception("metric %s could not be read; it is left out", name)


def _add(rows: Rows, more: Mapping[Any, float]) -> None:
    for key, value in more.items():
        labels = tuple(map(str, key)) if isinstance(key, tuple) else (key,)
        rows[labels] = rows.get(labels, 0) + value
