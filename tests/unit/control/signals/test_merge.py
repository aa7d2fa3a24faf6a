from llmproxy.control.signals.merge import merge
from llmproxy.core.backend import Backend, BackendSpec, Gauges, GpuGauges

ENGINE = Gauges(99.0, running=2.0, kv_tokens=1000, models=("m",))
GPU = Gauges(98.0, gpu=GpuGauges(98.0, utilization=0.5))


def test_all_that_is_said_becomes_one():
    gauges = merge([ENGINE, GPU], None, 100.0, 5.0)
    assert gauges == Gauges(
        99.0, running=2.0, kv_tokens=1000, models=("m",), gpu=GpuGauges(98.0, utilization=0.5), max_age_s=5.0
    )


def test_the_first_who_says_something_counts_and_the_oldest_dates_it():
    gauges = merge([ENGINE, Gauges(97.0, running=9.0, waiting=1.0)], None, 100.0, 5.0)
    assert (gauges.running, gauges.waiting, gauges.at) == (2.0, 1.0, 97.0)


def test_a_gpu_has_its_own_age():
    gauges = merge([ENGINE, Gauges(99.0, gpu=GpuGauges(94.5, utilization=0.5))], None, 100.0, 5.0)
    assert gauges.at == 99.0
    assert gauges.fresh_gpu(99.4).utilization == 0.5
    assert gauges.fresh_gpu(99.6) is None
    assert gauges.is_fresh(104.0)


def test_what_is_too_old_does_not_count():
    assert merge([ENGINE, GPU], None, 103.5, 5.0).gpu is None
    assert merge([ENGINE, GPU], None, 104.5, 5.0) is None
    assert merge([], ENGINE, 100.0, 5.0) is None


def test_facts_about_the_server_stay_known():
    gauges = merge([GPU], ENGINE, 100.0, 5.0)
    assert (gauges.running, gauges.kv_tokens, gauges.models, gauges.at) == (None, 1000, ("m",), 98.0)


def test_stale_is_unknown():
    backend = Backend(BackendSpec("b", "http://b"))
    assert backend.known(0.0) is None
    backend.gauges = merge([ENGINE], None, 99.0, 5.0)
    assert backend.known(104.0) is backend.gauges
    assert backend.known(104.1) is None
