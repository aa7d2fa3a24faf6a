import pytest

from llmproxy.telemetry.metrics import NONE, OTHER, Histogram, Metrics


def test_bounds_are_inclusive() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.11, 1.0, 1.5, 99.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.sum == pytest.approx(101.71)


def test_known_model_has_one_series_of_its_own() -> None:
    metrics = Metrics()
    metrics.know(["llama"])
    series = metrics.series("pool", "llama")
    assert (series.pool, series.model) == ("pool", "llama")
    assert metrics.series("pool", "llama") is series
    assert metrics.series("elsewhere", "llama") is not series


def test_unknown_models_share_one_series_and_leave_nothing_behind() -> None:
    metrics = Metrics()
    metrics.know(["llama"])
    first = metrics.series("pool", "made-up")
    for number in range(1000):
        assert metrics.series("pool", f"invented-{number}") is first
    assert first.model == OTHER
    assert list(metrics.all_series) == [("pool", OTHER)]
    assert metrics._by_request == {}


def test_model_that_becomes_known_gets_its_own_series() -> None:
    metrics = Metrics()
    assert metrics.series("pool", "late").model == OTHER
    metrics.know(["late"])
    assert metrics.series("pool", "late").model == "late"


def test_models_beyond_the_bound_count_as_other() -> None:
    metrics = Metrics(max_models=200)
    metrics.know(f"m{number}" for number in range(500))
    labels = {metrics.series("pool", f"m{number}").model for number in range(500)}
    assert labels == {OTHER} | {f"m{number}" for number in range(200)}


def test_knowing_a_name_twice_takes_no_room() -> None:
    metrics = Metrics(max_models=2)
    metrics.know(["a", "a", "a", "b"])
    metrics.know(["a", "b", "c"])
    assert [metrics.series("p", name).model for name in "abc"] == ["a", "b", OTHER]


def test_request_without_pool_or_model() -> None:
    series = Metrics().series(None, None)
    assert (series.pool, series.model) == (NONE, NONE)


def test_forget_drops_the_rows_of_that_backend_only() -> None:
    metrics = Metrics()
    for pool, backend in (("p", "b"), ("p", "c"), ("q", "b")):
        metrics.requests[pool, "m", backend, 200] += 1
        metrics.attempts[pool, backend, "ok"] += 1
        metrics.probes[pool, backend, "ok"] += 1
    metrics.forget("p", "b")
    assert set(metrics.requests) == {("p", "m", "c", 200), ("q", "m", "b", 200)}
    assert set(metrics.attempts) == set(metrics.probes) == {("p", "c", "ok"), ("q", "b", "ok")}


def test_reload_that_failed_keeps_the_time_of_the_last_good_one() -> None:
    metrics = Metrics()
    metrics.reloaded(True, 1000.0)
    metrics.reloaded(False, 2000.0)
    assert metrics.reloads == {"ok": 1, "failed": 1}
    assert (metrics.reload_ok, metrics.config_loaded_at) == (False, 1000.0)


def test_reader_of_an_unknown_metric_is_a_defect() -> None:
    with pytest.raises(KeyError):
        Metrics().read("llmproxy_conections", lambda: 1)
    with pytest.raises(ValueError, match="histogram"):
        Metrics().read("llmproxy_queue_seconds", lambda: 1)


def test_forget_pool_drops_all_that_was_counted_of_it() -> None:
    metrics = Metrics()
    metrics.know(["m"])
    for pool in ("p", "q"):
        metrics.requests[pool, "m", "b", 200] += 1
        metrics.attempts[pool, "b", "ok"] += 1
        metrics.probes[pool, "b", "ok"] += 1
        metrics.retries[pool, "reset"] += 1
        metrics.decisions[pool, "prefix"] += 1
        metrics.shed[pool, "queue_full"] += 1
        metrics.abandoned[pool] += 1
        metrics.heartbeats[pool] += 1
        metrics.hedges[pool, "sent"] += 1
        metrics.queue(pool).observe(1.0)
        metrics.series(pool, "m").duration.observe(1.0)
    before = metrics.series("q", "m")
    metrics.forget_pool("p")
    by_pool = (
        metrics.requests,
        metrics.attempts,
        metrics.probes,
        metrics.retries,
        metrics.decisions,
        metrics.shed,
        metrics.hedges,
    )
    assert [{key[0] for key in table} for table in (*by_pool, metrics.all_series)] == [{"q"}] * 8
    assert set(metrics.abandoned) == set(metrics.heartbeats) == set(metrics.queue_waits) == {"q"}
    assert metrics.series("q", "m") is before
    assert sum(metrics.series("p", "m").duration.counts) == 0
    metrics.forget_pool("never there")
