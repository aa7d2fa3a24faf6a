import logging
import shutil
import subprocess
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmproxy.core.backend import Backend, BackendSpec, Gauges, GpuGauges, Status
from llmproxy.core.clock import ManualClock
from llmproxy.telemetry.cost import COST
from llmproxy.telemetry.exposition import Exposition
from llmproxy.telemetry.gauges import readers
from llmproxy.telemetry.metrics import Metrics
from llmproxy.telemetry.scaling import SCALING
from llmproxy.telemetry.table import TABLE, Kind

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class LivePool:
    name: str
    backends: list[Backend] = field(default_factory=list)


def scrape(metrics: Metrics) -> Samples:
    text = Exposition(metrics).render()[0].decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} twice"
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def busy_metrics() -> Metrics:
    """Metrics with something in every row of the table."""
    metrics = Metrics(version="1.2.3")
    metrics.know(["llama"])
    series = metrics.series("p", "llama")
    series.prompt_tokens, series.cached_tokens, series.completion_tokens = 11, 5, 7
    for histogram in (series.ttft, series.itl, series.duration, metrics.queue("p"), metrics.overhead, metrics.loop_lag):
        histogram.observe(0.02)
    for row in SCALING:
        metrics.read(f"llmproxy_scaling_{row.name}", lambda labels=row.labels: {("p",) * len(labels): 1.0})
    for row in COST:
        metrics.read(f"llmproxy_{row.name}", lambda labels=row.labels: {("p",) * len(labels): 1.0})
    metrics.requests["p", "llama", "b0", 200] += 3
    metrics.attempts["p", "b0", "reset"] += 1
    metrics.retries["p", "reset"] += 1
    metrics.decisions["p", "prefix"] += 1
    metrics.abandoned["p"] += 2
    metrics.heartbeats["p"] += 4
    metrics.hedges["p", "sent"] += 1
    metrics.shed["p", "queue_full"] += 1
    metrics.errors["overloaded", "proxy"] += 1
    metrics.probes["p", "b0", "ok"] += 9
    metrics.tenants.count("acme", 200, 10, 5)
    metrics.reloaded(True, 1.5e9)
    backend = Backend(BackendSpec("b0", "http://10.0.0.1:8000", weight=3.0, max_concurrency=64), status=Status.OPEN)
    backend.load.enter()
    gpu = GpuGauges(
        9.0,
        utilization=0.5,
        memory_used_bytes=1e9,
        memory_total_bytes=8e10,
        power_w=250.5,
        temperature_c=61,
        throttled=True,
        ecc_errors=0,
    )
    backend.gauges = Gauges(8.0, running=3, waiting=0, kv_usage=0.25, kv_tokens=87360, gpu=gpu, max_age_s=5.0)
    metrics.watch(lambda: [LivePool("p", [backend])])
    metrics.read("llmproxy_breaker_state", lambda: {("p", "b0"): 2})
    for name, read in readers(metrics.pools, lambda: 10.0).items():
        metrics.read(name, read)
    metrics.read("llmproxy_scrapes_total", lambda: {("p", "b0", "engine", "ok"): 7})
    metrics.read("llmproxy_backend_hangs_total", lambda: {("p", "b0"): 1})
    metrics.read("llmproxy_auth_total", lambda: {"ok": 3})
    metrics.read("llmproxy_auth_store_age_seconds", lambda: 0.5)
    metrics.read("llmproxy_limit_verdicts_total", lambda: {("free", "passed"): 3.0})
    metrics.read("llmproxy_limit_decisions_total", lambda: {"redis": 3.0})
    metrics.read("llmproxy_limit_store_up", lambda: 1.0)
    metrics.read("llmproxy_limit_store_links_total", lambda: {"up": 1.0})
    metrics.read("llmproxy_limit_proxies", lambda: 2.0)
    metrics.read("llmproxy_queue_waiting", lambda: {"p": 4})
    metrics.read("llmproxy_queue_waiting_by_priority", lambda: {("p", "high"): 4.0})
    metrics.read("llmproxy_connections", lambda: {"downstream": 5})
    metrics.read("llmproxy_connections", lambda: {("upstream",): 6})
    metrics.read("llmproxy_connections_opened_total", lambda: {"downstream": 50})
    metrics.read("llmproxy_connections_refused_total", lambda: 1)
    metrics.read("llmproxy_connections_reused_total", lambda: 2)
    metrics.read("llmproxy_buffered_body_bytes", lambda: 1024)
    metrics.read("llmproxy_access_log_dropped_total", lambda: 8)
    return metrics


def test_what_backends_say_of_themselves_is_shown_while_it_counts() -> None:
    backend = Backend(BackendSpec("b0", "http://10.0.0.1:8000"))
    backend.gauges = Gauges(8.0, running=0.0, gpu=GpuGauges(4.0, utilization=0.5, throttled=False), max_age_s=5.0)
    metrics, now = Metrics(), ManualClock(9.0)
    for name, read in readers(lambda: [LivePool("p", [backend])], now).items():
        metrics.read(name, read)
    key = {"pool": "p", "backend": "b0"}

    def shown() -> dict[str, float]:
        return {name: found for (name, labels), found in scrape(metrics).items() if dict(labels) == key}

    assert shown() == {
        "llmproxy_backend_running": 0.0,
        "llmproxy_backend_gauges_age_seconds": 1.0,
        "llmproxy_backend_gpu_utilization_ratio": 0.5,
        "llmproxy_backend_gpu_throttled": 0.0,
    }
    now.advance(1.0)
    assert shown().keys() == {"llmproxy_backend_running", "llmproxy_backend_gauges_age_seconds"}
    now.advance(10.0)
    assert shown() == {"llmproxy_backend_gauges_age_seconds": 12.0}, "unknown, not zero"


def test_every_row_of_the_table_gets_its_samples_with_its_labels() -> None:
    seen = scrape(busy_metrics())
    for metric in TABLE:
        name = metric.name + ("_count" if metric.kind is Kind.HISTOGRAM else "")
        labels = [tuple(key for key, _ in pairs) for sample, pairs in seen if sample == name]
        assert labels, f"nothing for {metric.name}"
        assert set(labels) == {tuple(sorted(metric.labels))}, metric.name


def test_every_family_has_its_type_and_its_help() -> None:
    text = Exposition(busy_metrics()).render()[0].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in TABLE:
        family = families[metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)


def test_values_come_out_as_counted() -> None:
    seen = scrape(busy_metrics())
    assert value(seen, "llmproxy_requests_total", pool="p", model="llama", backend="b0", status="200") == 3
    assert value(seen, "llmproxy_prompt_tokens_total", pool="p", model="llama") == 11
    assert value(seen, "llmproxy_cached_prompt_tokens_total", pool="p", model="llama") == 5
    assert value(seen, "llmproxy_completion_tokens_total", pool="p", model="llama") == 7
    assert value(seen, "llmproxy_abandoned_total", pool="p") == 2
    assert value(seen, "llmproxy_heartbeats_total", pool="p") == 4
    assert value(seen, "llmproxy_connections", side="downstream") == 5
    assert value(seen, "llmproxy_connections", side="upstream") == 6
    assert value(seen, "llmproxy_access_log_dropped_total") == 8
    assert value(seen, "llmproxy_build_info", version="1.2.3") == 1
    assert value(seen, "llmproxy_config_last_reload_timestamp_seconds") == 1.5e9


def test_histogram_buckets_are_cumulative() -> None:
    metrics = Metrics()
    for lag_s in (0.001, 0.002, 0.02, 60.0):
        metrics.loop_lag.observe(lag_s)
    seen = scrape(metrics)
    name = "llmproxy_event_loop_lag_seconds"
    bounds = ("0.001", "0.0025", "0.01", "0.025", "5.0", "+Inf")
    assert [value(seen, f"{name}_bucket", le=bound) for bound in bounds] == [1, 2, 2, 3, 3, 4]
    assert value(seen, f"{name}_count") == 4
    assert value(seen, f"{name}_sum") == pytest.approx(60.023)


def test_readers_of_the_same_labels_are_added_up() -> None:
    metrics = Metrics()
    metrics.read("llmproxy_connections", lambda: {"downstream": 5, "upstream": 1})
    metrics.read("llmproxy_connections", lambda: {("downstream",): 2})
    seen = scrape(metrics)
    assert value(seen, "llmproxy_connections", side="downstream") == 7
    assert value(seen, "llmproxy_connections", side="upstream") == 1


def test_live_objects_are_read_at_each_scrape() -> None:
    metrics = Metrics()
    backend = Backend(BackendSpec("b", "http://10.0.0.1:8000"), status=Status.HEALTHY)
    pool = LivePool("p", [backend])
    metrics.watch(lambda: [pool])
    seen = scrape(metrics)
    assert value(seen, "llmproxy_backend_up", pool="p", backend="b") == 1
    assert value(seen, "llmproxy_in_flight", pool="p", backend="b") == 0
    backend.load.enter()
    backend.status = Status.HALF_OPEN
    backend.weight = 0.25
    seen = scrape(metrics)
    assert value(seen, "llmproxy_in_flight", pool="p", backend="b") == 1
    assert value(seen, "llmproxy_backend_up", pool="p", backend="b") == 0
    assert value(seen, "llmproxy_backend_weight", pool="p", backend="b") == 0.25
    states = {dict(labels)["state"]: one for (name, labels), one in seen.items() if name == "llmproxy_backend_status"}
    assert states == {status.value: float(status is Status.HALF_OPEN) for status in Status}
    pool.backends.clear()
    assert not [name for name, _ in scrape(metrics) if name.startswith("llmproxy_backend_")]


def test_counters_of_a_watched_pool_and_reloads_start_at_zero() -> None:
    metrics = Metrics()
    metrics.watch(lambda: [LivePool("quiet")])
    seen = scrape(metrics)
    assert value(seen, "llmproxy_abandoned_total", pool="quiet") == 0
    assert value(seen, "llmproxy_config_reloads_total", result="failed") == 0


def test_series_without_observations_show_no_buckets() -> None:
    metrics = Metrics()
    metrics.know(["embedder"])
    metrics.series("p", "embedder").duration.observe(0.1)
    names = {name for name, _ in scrape(metrics)}
    assert "llmproxy_request_duration_seconds_count" in names
    assert "llmproxy_inter_token_latency_seconds_count" not in names


def test_odd_label_values_survive() -> None:
    metrics = Metrics()
    odd = 'a"b\\c\nd\u2028'
    metrics.know([odd])
    metrics.series("p", odd).prompt_tokens = 1
    assert value(scrape(metrics), "llmproxy_prompt_tokens_total", pool="p", model=odd) == 1


def test_broken_reader_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> float:
        raise RuntimeError("no such thing")

    metrics = busy_metrics()
    metrics.read("llmproxy_buffered_body_bytes", broken)
    exposition = Exposition(metrics)
    with caplog.at_level(logging.ERROR):
        exposition.render()
        text = exposition.render()[0].decode()
    assert "llmproxy_buffered_body_bytes 1024.0" in text
    assert [record.getMessage() for record in caplog.records] == [
        "metric llmproxy_buffered_body_bytes could not be read; it is left out"
    ]


def test_process_metrics_and_two_proxies_in_one_process() -> None:
    one, two = Exposition(Metrics(version="1")), Exposition(Metrics(version="2"))
    body, content_type = one.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"process_resident_memory_bytes" in body
    assert b"python_info" in body
    assert b'llmproxy_build_info{version="1"}' in body
    assert b'llmproxy_build_info{version="2"}' in two.render()[0]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_say() -> None:
    body = Exposition(busy_metrics()).render()[0]
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
