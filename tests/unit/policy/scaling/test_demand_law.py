"""`demand`, term by term."""

from math import sqrt

import pytest

from llmproxy.policy.scaling.base import Demand, Rates, Signals
from llmproxy.policy.scaling.demand import DemandLaw, DemandOptions
from llmproxy.policy.scaling.options import OptionError
from llmproxy.policy.scaling.registry import build


def signals(g=0.0, f=None, sigma=0.0, mu=4.0, now=0.0, **others):
    demand = Demand(Rates(g if f is None else f), Rates(g), Rates(sigma))
    return Signals(now=now, demand=demand, sustainable=Rates(mu), **{"ready": 10, **others})


def wanted(given, now=0.0, **options):
    found = DemandLaw(DemandOptions(**options)).want(given, now)
    return None if found is None else found.replicas


def test_utilisation_is_kept_at_the_target():
    assert wanted(signals(g=34.0)) == 10
    assert wanted(signals(g=34.1)) == 11
    assert wanted(signals(g=34.0), target=0.5) == 17


def test_room_for_chance_beyond_the_mean():
    # (20 + 2 * 15 / sqrt 3) / 4
    assert (20 + 2 * 15 / sqrt(3)) / 4 == pytest.approx(9.33, abs=0.01)
    assert wanted(signals(g=20.0, sigma=15.0), z=2) == 10
    assert wanted(signals(g=20.0, sigma=15.0), z=0) == 6


def test_a_backlog_is_dug_off_within_half_a_minute():
    # (40 + 120 / 30) / 4
    assert wanted(signals(g=10.0, f=40.0, queue_depth=120)) == 11


def test_half_a_second_of_capacity_is_no_backlog():
    assert wanted(signals(g=10.0, f=40.0, queue_depth=20)) == 3
    assert wanted(signals(g=10.0, f=40.0, queue_depth=21)) == 11


def test_the_tightest_dimension_wins():
    demand = Demand(Rates(8.0, 9000.0), Rates(8.0, 9000.0, 100.0), Rates(0.0, 0.0, 0.0))
    given = Signals(now=0.0, ready=2, demand=demand, sustainable=Rates(4.0, 1000.0, 1000.0))
    found = DemandLaw(DemandOptions()).want(given, 0.0)
    assert found is not None
    assert found.replicas == 11
    assert "prompt tokens" in found.reason


def test_a_full_kv_cache_counts():
    assert wanted(signals(g=1.0, kv_usage=0.95)) == 12


def test_down_only_to_the_highest_of_five_minutes():
    law = DemandLaw(DemandOptions())
    assert law.want(signals(g=34.0), 0.0).replicas == 10
    assert law.want(signals(g=3.4), 299.0).replicas == 10
    assert law.want(signals(g=3.4), 300.0).replicas == 1


def test_a_long_cold_start_holds_longer():
    law = DemandLaw(DemandOptions())
    assert law.want(signals(g=34.0, cold_start_s=600.0), 0.0).replicas == 10
    assert law.want(signals(g=3.4, cold_start_s=600.0), 599.0).replicas == 10
    assert law.want(signals(g=3.4, cold_start_s=600.0), 600.0).replicas == 1


def test_no_opinion_while_a_replicas_rate_is_unknown():
    assert wanted(signals(g=34.0, mu=None)) is None
    assert wanted(Signals(now=0.0, sustainable=Rates(4.0))) is None


def test_no_demand_wants_nothing():
    assert wanted(signals(g=0.0)) == 0


def test_burning_the_error_budget_lowers_utilisation():
    law = DemandLaw(DemandOptions(hold=0.0))
    quiet = [law.want(signals(g=34.0, slo_miss_rate=0.004), 60.0 * minute).replicas for minute in range(600)]
    assert set(quiet) == {10}
    burning = [law.want(signals(g=34.0, slo_miss_rate=0.05), 36000 + 60.0 * minute).replicas for minute in range(600)]
    assert burning == sorted(burning)
    assert burning[-1] > 12
    assert max(burning) <= 17, "target_min is 50 %"
    over = [law.want(signals(g=34.0, slo_miss_rate=0.0), 72000 + 60.0 * minute).replicas for minute in range(6000)]
    assert over[-1] == 10


def test_a_budget_that_is_not_spent_raises_utilisation_a_little():
    def wanted_over_days(miss_rate: float | None) -> list[int]:
        law = DemandLaw(DemandOptions(hold=0.0))
        return [law.want(signals(g=36.0, slo_miss_rate=miss_rate), 60.0 * minute).replicas for minute in range(6000)]

    unspent = wanted_over_days(0.0)
    assert unspent[0] == 11, "36 / 4 / 85 %"
    assert unspent[359:361] == [11, 11], "not within hours"
    assert unspent[-1] == 10, "90 %"
    assert set(wanted_over_days(0.004)) == {11}, "spent for the most part"
    assert set(wanted_over_days(None)) == {11}, "nobody knows"


def test_no_objective_leaves_the_target_alone():
    law = DemandLaw(DemandOptions(objective=0.0))
    assert {law.want(signals(g=34.0, slo_miss_rate=1.0), 60.0 * minute).replicas for minute in range(600)} == {10}


@pytest.mark.parametrize(
    "options",
    [{"target": 0}, {"target": "120%"}, {"z": -1}, {"objective": 1}, {"dig_off": 0}, {"targt": 0.8}, {"hold": "soon"}],
)
def test_unfit_options_are_refused(options):
    with pytest.raises(OptionError):
        build("demand", options)


def test_options_as_they_are_written():
    law = build("demand", {"target": "80%", "z": 1, "hold": "5m"})
    assert law.want(signals(g=32.0), 0.0).replicas == 10
