"""Signals from counters: windows, quantiles, and what is unknown."""

import random

import pytest

from llmproxy.control.scaling.meter import Meter, Replicas
from llmproxy.core.backend import Backend, BackendSpec, Gauges, GpuGauges
from llmproxy.core.pool import Pool
from llmproxy.core.ports import ProbeResult
from llmproxy.core.request import Request
from llmproxy.policy.admission.admission import Admission
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.health.registry import Health
from llmproxy.policy.health.settings import HealthSettings
from llmproxy.policy.retry.budget import Budget
from llmproxy.policy.routing.registry import build
from llmproxy.policy.scaling.base import Signals
from llmproxy.telemetry.metrics import Metrics


class Bench:
    def __init__(self, *specs: BackendSpec) -> None:
        rng = random.Random(0)
        self.metrics = Metrics()
        self.metrics.know(["m"])
        routing = build("least_connections", {}, rng)
        self.pool: Pool[None] = Pool(
            name="p",
            settings=None,
            routing=routing,
            health=Health(HealthSettings(), rng),
            retries=Budget(0.2, 10),
            queue=Admission[str](AdmissionOptions(), routing),
        )
        found = specs or (BackendSpec("a", "http://a"), BackendSpec("b", "http://b"))
        self.pool.set_members([Backend(spec) for spec in found], 0.0)
        self.now = 1000.0
        self.meter = Meter(self.pool, self.metrics, self.now, slo_ttft_s=1.0, tiers=["big"])

    def answered(self, count: int = 1, *, status: int = 200, ttft_s: float = 0.2, tokens: int = 10) -> None:
        series = self.metrics.series("p", "m")
        for _ in range(count):
            self.metrics.requests["p", "m", "a", status] += 1
            series.duration.observe(ttft_s * 2)
            series.ttft.observe(ttft_s)
            series.prompt_tokens += 100
            series.cached_tokens += 60
            series.completion_tokens += tokens

    def second(self) -> None:
        self.now += 1.0
        self.meter.sample(self.now)

    def warm(self) -> None:
        """All are healthy, and past their slow start."""
        for backend in self.pool.backends:
            self.pool.health.ease_in(backend, self.now)
        for backend in self.pool.backends:
            self.pool.health.probed(backend, ProbeResult.OK, self.now)
        self.now += 60
        self.pool.health.candidates(self.now)

    def one_waits(self) -> None:
        queue = self.pool.queue
        queue.enter(queue.ticket(Request(), self.pool.backends), self.now, lambda ticket, reason: None)

    def signals(self) -> Signals:
        return self.meter.signals(self.now, 1e9, Replicas(ready=2), cold_start_s=30.0)


def test_nothing_is_known_at_first() -> None:
    signals = Bench().signals()
    assert (signals.queue_depth, signals.in_flight, signals.ready) == (0, 0, 2)
    unknown = (signals.error_rate, signals.ttft.p95_s, signals.gpu_utilization, signals.kv_usage, signals.slo_miss_rate)
    assert unknown == (None,) * 5
    assert signals.demand.last_60s.requests_per_s is None


def test_demand_is_what_arrives_also_when_it_is_not_answered() -> None:
    bench = Bench()
    for _ in range(20):
        bench.pool.retries.request_started()
        bench.pool.retries.request_started()
        bench.second()
    assert bench.signals().demand.last_10s.requests_per_s == pytest.approx(2.0, abs=0.21)


def test_tokens_are_requests_times_what_one_has() -> None:
    bench = Bench()
    for _ in range(30):
        bench.answered(4)
        bench.second()
    demand = bench.signals().demand.last_10s
    assert demand.requests_per_s == pytest.approx(4.0, rel=0.11)
    assert demand.prefill_tokens_per_s == pytest.approx(160.0, rel=0.11), "without what was cached"
    assert demand.decode_tokens_per_s == pytest.approx(40.0, rel=0.11)


def test_windows_forget() -> None:
    bench = Bench()
    bench.second()
    bench.answered(10, status=502, ttft_s=5.0)
    bench.second()
    assert bench.signals().error_rate == 1.0
    assert bench.signals().slo_miss_rate == 1.0
    for _ in range(70):
        bench.answered(1)
        bench.second()
    signals = bench.signals()
    assert signals.error_rate == 0.0
    assert signals.ttft.p95_s == pytest.approx(0.2425, abs=0.01)
    assert signals.slo_miss_rate == pytest.approx(10 / 80)


def test_counters_of_a_backend_that_left_take_nothing_away() -> None:
    bench = Bench()
    for _ in range(20):
        bench.answered(3)
        bench.second()
    bench.metrics.forget("p", "a")
    for _ in range(12):
        bench.answered(3)
        bench.second()
    assert bench.signals().demand.last_10s.requests_per_s == pytest.approx(3.0, abs=0.31)


def test_gauges_are_means_of_those_that_are_known() -> None:
    bench = Bench()
    one, other = bench.pool.backends
    gpu = GpuGauges(at=bench.now, utilization=0.8, memory_used_bytes=30.0, memory_total_bytes=40.0)
    one.gauges = Gauges(at=bench.now, kv_usage=0.5, waiting=3.0, gpu=gpu, max_age_s=5.0)
    other.gauges = Gauges(at=bench.now - 60, kv_usage=1.0, waiting=9.0, max_age_s=5.0)
    signals = bench.signals()
    assert (signals.kv_usage, signals.gpu_utilization, signals.gpu_memory) == (0.5, 0.8, 0.75)
    assert signals.queue_depth == 3, "what waits inside engines waits too"


def test_what_a_replica_sustains_is_learned_while_requests_wait() -> None:
    bench = Bench()
    bench.warm()
    bench.one_waits()
    for _ in range(40):
        bench.answered(6)
        bench.second()
    assert bench.signals().sustainable.requests_per_s == pytest.approx(3.0, rel=0.05)


def test_where_replicas_differ_it_is_what_one_of_worth_1_sustains() -> None:
    small, big = BackendSpec("a", "http://a", tier="small"), BackendSpec("b", "http://b", weight=5.0, tier="big")
    bench = Bench(small, big)
    bench.warm()
    bench.one_waits()
    for _ in range(40):
        bench.answered(6)
        bench.second()
    assert bench.signals().sustainable.requests_per_s == pytest.approx(1.0, rel=0.05)


def test_who_waits_for_a_larger_replica_teaches_nothing() -> None:
    bench = Bench()
    bench.warm()
    bench.one_waits()
    bench.pool.awaited["big"] = 1
    for _ in range(40):
        bench.answered(6)
        bench.second()
    assert bench.signals().sustainable.requests_per_s is None


def test_what_other_proxies_get_for_a_tier_is_demand_for_it() -> None:
    bench, other = Bench(), Bench()
    other.pool.awaited["big"] = 1
    for _ in range(90):
        seen = other.metrics.tier_prompts["p", "big"]
        seen.requests += 2
        seen.tokens += 2000
        bench.meter.elsewhere.take({"other": other.meter.report(bench.now, {}, {})})
        bench.second()
    state = bench.meter.tier("big", 1, 0)
    assert state.demand.requests_per_s == pytest.approx(2.0, rel=0.05)
    assert state.demand.prefill_tokens_per_s == pytest.approx(2000.0, rel=0.05)
    assert state.waiting == 1


def test_demand_by_tier() -> None:
    bench = Bench()
    bench.pool.awaited["big"] = 2
    for _ in range(60):
        seen = bench.metrics.tier_prompts["p", "big"]
        seen.requests, seen.tokens = seen.requests + 1, seen.tokens + 5000.0
        bench.second()
    state = bench.meter.tier("big", 1, 2)
    assert (state.ready, state.starting, state.waiting) == (1, 2, 2)
    assert state.demand.requests_per_s == pytest.approx(1.0, rel=0.05)
    assert state.demand.prefill_tokens_per_s == pytest.approx(5000.0, rel=0.05)
    assert bench.meter.tier("other", 0, 0).demand.requests_per_s is None
