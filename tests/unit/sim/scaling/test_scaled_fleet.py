"""The simulated fleet against arithmetic done by hand, and the traffic it is given."""

import gzip
import random
from statistics import fmean, pvariance

import pytest

from llmproxy.sim.scaling.fleet import Fleet, Model
from llmproxy.sim.scaling.race import CONTROLLERS, run
from llmproxy.sim.scaling.traffic import Rates, Window, arrivals, read_rates
from llmproxy.sim.traces import TraceError

MODEL = Model()


def write(tmp_path, text, name="rates.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_a_replica_begins_four_a_second_and_each_takes_eight():
    fleet = Fleet(MODEL, 2)
    for _ in range(20):
        fleet.tick(10)
    assert fleet.waiting == 20 * (10 - 8)
    assert fleet.running == 8 * 8


def test_waiting_two_seconds_is_in_time_and_more_is_not():
    fleet = Fleet(MODEL, 1)
    fleet.tick(20)
    for _ in range(10):
        fleet.tick(0)
    # 4 at once, 4 after one second, 4 after two.
    assert (fleet.judged, fleet.in_time) == (20, 12)
    assert fleet.attained == 0.6


def test_a_cold_start_and_a_drain_are_paid_for():
    fleet = Fleet(MODEL, 1)
    assert fleet.scale(3) == 2
    for _ in range(120):
        fleet.tick(0)
        assert fleet.ready == 1
    fleet.tick(0)
    assert (fleet.ready, fleet.starting) == (3, 0)
    assert fleet.replica_hours * 3600 == 121 * 3
    assert fleet.scale(1) == -2
    for _ in range(20):
        fleet.tick(0)
    assert fleet.replica_hours * 3600 == 121 * 3 + 20 + 2 * 8
    assert fleet.events == 2


def test_what_still_starts_is_let_go_first():
    fleet = Fleet(MODEL, 2)
    fleet.scale(5)
    assert fleet.scale(1) == -4
    assert (fleet.ready, fleet.starting, len(fleet.draining)) == (1, 0, 1)


def test_never_more_than_the_model_allows_nor_fewer():
    fleet = Fleet(MODEL, 1)
    assert fleet.scale(1000) == 199
    assert fleet.scale(0) == -199


def test_rates_are_kept_and_gaps_vary_as_they_should():
    rates = Rates("x", (Window(0, 100.0, 1.0), Window(20000, 300.0, 3.0)), 40000)
    assert rates.mean == 200
    counts = arrivals(rates, 40.0, random.Random(1))
    first, second = counts[:20000], counts[20000:]
    assert fmean(first) == pytest.approx(20, rel=0.02)
    assert fmean(second) == pytest.approx(60, rel=0.02)
    assert pvariance(first) == pytest.approx(20, rel=0.05)
    assert pvariance(second) == pytest.approx(9 * 60, rel=0.05)


def test_a_file_of_rates(tmp_path):
    text = "window_start_s,req_per_s,some_cv\n0,2,1.5\n600,4,\nx,y,z\n1200,0,0\n"
    rates = read_rates(write(tmp_path, text))
    assert rates.windows == (Window(0, 2, 1.5), Window(600, 4, 1), Window(1200, 0, 0))
    assert (rates.end_s, rates.mean, rates.bad) == (1800, 2, 1)
    packed = tmp_path / "rates.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_rates(packed).windows == rates.windows


def test_a_request_trace_is_measured(tmp_path):
    rows = "".join(f"{at * 500},10,10\n" for at in range(240)) + "".join(
        f"{120000 + at * 250},9,9\n" for at in range(240)
    )
    rates = read_rates(write(tmp_path, "timestamp_ms,input_tokens,output_tokens\n" + rows))
    assert [window.rate for window in rates.windows] == [2.0, 2.0, 4.0]
    assert rates.windows[0].cv < 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("window_start_s,req_per_s\n", "no window"),
        ("window_start_s,req_per_s\n0,1\n0,2\n", "same second"),
        ("window_start_s,req_per_s\n0,1\n99999999,2\n", "longer"),
        ("window_start_s,req_per_s\n0,-1\n", "less than nothing"),
        ("what,is,this\n", "no format"),
        ("", "empty"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, complaint):
    with pytest.raises(TraceError, match=complaint):
        read_rates(write(tmp_path, text))


def test_no_traffic_at_all_is_an_error():
    with pytest.raises(TraceError):
        arrivals(Rates("x", (Window(0, 0.0, 1.0),), 600), 40.0, random.Random(0))


@pytest.mark.parametrize("name", sorted(CONTROLLERS))
def test_every_controller_follows_the_traffic_up_and_down(name):
    rng = random.Random(7)
    traffic = [max(int(rng.gauss(rate, rate**0.5)), 0) for rate in [20] * 1200 + [80] * 1800 + [20] * 3000]

    controller = CONTROLLERS[name](MODEL, traffic)
    fleet, seen = Fleet(MODEL, 8), {}
    for count in traffic:
        fleet.tick(count)
        controller.second(count, fleet)
        if fleet.now % controller.period_s == 0:
            wanted = controller.wanted(fleet)
            if wanted is not None:
                controller.done(fleet.scale(wanted), fleet)
        seen[fleet.now] = fleet.ready
    assert seen[2990] >= 20
    assert seen[6000] <= seen[2990]
    if name != "keda":
        # Its minimum, without which it serves nobody in time, is above this day's peak.
        assert seen[6000] < seen[2990]


def test_the_same_traffic_gives_the_same_result():
    traffic = [int(40 + 20 * random.Random(second // 300).random()) for second in range(3600)]
    one = run("demand", CONTROLLERS["demand"](MODEL, traffic), MODEL, traffic)
    assert one == run("demand", CONTROLLERS["demand"](MODEL, traffic), MODEL, traffic)
    assert one.slo_attained > 0.95
