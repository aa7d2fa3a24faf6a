"""Prometheus text, made from the counters and the live objects when a scrape asks for it."""

import logging
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from llmproxy.core.backend import Status
from llmproxy.telemetry.metrics import Histogram, Metrics
from llmproxy.telemetry.table import TABLE, Kind, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BREAKER = {Status.HALF_OPEN: 1, Status.OPEN: 2}

Rows = dict[tuple[str, ...], float]

logger = logging.getLogger(__name__)


class ProxyCollector(Collector):
    """The table's metrics. What is gathered is copied first, so another thread may collect."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reported: set[str] = set()

    def collect(self) -> Iterator[Family]:
        rows = self._rows()
        histograms = self._histograms()
        for metric in TABLE:
            if metric.kind is Kind.HISTOGRAM:
                yield _histogram_family(metric, histograms.get(metric.name, {}))
            else:
                yield _family(metric, rows.get(metric.name, {}))

    def _rows(self) -> dict[str, Rows]:
        metrics = self._metrics
        rows = self._backend_rows()
        counters: dict[str, Mapping[Any, int]] = {
            "llmproxy_requests_total": metrics.requests.copy(),
            "llmproxy_attempts_total": metrics.attempts.copy(),
            "llmproxy_retries_total": metrics.retries.copy(),
            "llmproxy_shed_total": metrics.shed.copy(),
            "llmproxy_errors_total": metrics.errors.copy(),
            "llmproxy_probes_total": metrics.probes.copy(),
            "llmproxy_abandoned_total": metrics.abandoned.copy(),
            "llmproxy_config_reloads_total": metrics.reloads.copy(),
        }
        for name, counts in counters.items():
            _add(rows.setdefault(name, {}), counts)
        for series in list(metrics.all_series.values()):
            key = (series.pool, series.model)
            rows.setdefault("llmproxy_prompt_tokens_total", {})[key] = series.prompt_tokens
            rows.setdefault("llmproxy_cached_prompt_tokens_total", {})[key] = series.cached_tokens
            rows.setdefault("llmproxy_completion_tokens_total", {})[key] = series.completion_tokens
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
            for backend in pool.backends:
                key, status = (pool.name, backend.id), backend.status
                put("llmproxy_in_flight", key, backend.load.in_flight)
                put("llmproxy_backend_weight", key, backend.weight)
                put("llmproxy_backend_up", key, status is Status.HEALTHY)
                put("llmproxy_breaker_state", key, _BREAKER.get(status, 0))
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


class Exposition:
    """What `/metrics` answers: the table, the process and the Python build, from a registry of its own."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(ProxyCollector(metrics))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """The body and its content type. Takes milliseconds with many models; may run outside the loop's thread."""
        return generate_latest(self._registry), CONTENT_TYPE


def _add(rows: Rows, more: Mapping[Any, float]) -> None:
    for key, value in more.items():
        labels = tuple(map(str, key)) if isinstance(key, tuple) else (key,)
        rows[labels] = rows.get(labels, 0) + value


def _family(metric: Metric, rows: Rows) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is Kind.COUNTER:
        family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for key, value in rows.items():
        if len(key) == len(metric.labels):
            family.add_metric(key, value)
    return family


def _histogram_family(metric: Metric, rows: dict[tuple[str, ...], Histogram]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
    for key, histogram in rows.items():
        total, counts = histogram.sum, histogram.counts.copy()
        # Embedding models have no tokens to time: their rows of zeros would be most of a scrape.
        if any(counts) or not key:
            family.add_metric(key, list(zip(bounds, accumulate(counts), strict=True)), total)
    return family
