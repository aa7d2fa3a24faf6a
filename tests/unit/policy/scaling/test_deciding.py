"""From opinions to a decision: combination, windows and steps, bounds, budgets, the kill switch."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from llmproxy.policy.scaling.base import Rates, Signals, Wanted
from llmproxy.policy.scaling.calendar_month import month_of
from llmproxy.policy.scaling.capacity import Capacity
from llmproxy.policy.scaling.combine import combine
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.meter import DemandMeter
from llmproxy.policy.scaling.money import Budget, Purse
from llmproxy.policy.scaling.registry import build
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser


class Says:
    """Wants what it is told."""

    options_type = dict

    def __init__(self, name, replicas=None, cap=None):
        self.name, self.replicas, self.cap = name, replicas, cap

    def want(self, signals, now):
        if self.replicas is None:
            return None
        return Wanted(self.replicas, f"{self.name} says so", self.name, self.cap)


def decider(*policies, behavior=None, **limits):
    at_once = Behavior(down=Direction())
    return Decider(policies, Stabiliser(behavior or at_once), Guardrails(Limits(**{"max": 100, **limits})))


def test_the_highest_wins_and_says_why():
    found = decider(Says("a", 3), Says("b", 5), Says("c")).decide(Signals(0.0, ready=1), 0.0)
    assert (found.replicas, found.change, found.wanted.policy) == (5, 4, "b")
    assert found.reason == "b: b says so"
    assert [one.policy for one in found.opinions] == ["a", "b"]


def test_nobody_with_an_opinion_changes_nothing():
    found = decider(Says("a")).decide(Signals(0.0, ready=3, starting=1), 0.0)
    assert (found.replicas, found.change) == (4, 0)


def test_the_lowest_cap_is_kept_by_all():
    found = combine([Wanted(9, "busy", "demand"), Wanted(2, "night", "schedule", 4), Wanted(1, "x", "y", 6)])
    assert (found.replicas, found.policy) == (4, "schedule")
    assert "demand wants 9" in found.reason
    assert combine([Wanted(3, "", "demand"), Wanted(2, "night", "schedule", 4)]).replicas == 3
    assert combine([Wanted(3, "", "demand"), Wanted(0, "night", "schedule", 0)]).replicas == 0


def test_down_to_the_highest_of_the_window_and_up_to_the_lowest():
    stabiliser = Stabiliser(Behavior(Direction(window_s=60), Direction(window_s=300)))
    assert stabiliser.steady(9, 5, 0.0)[0] == 9, "nothing lower was ever wanted"
    assert stabiliser.steady(5, 9, 10.0)[0] == 9
    assert stabiliser.steady(8, 5, 20.0)[0] == 5
    assert stabiliser.steady(8, 5, 70.0)[0] == 8
    assert stabiliser.steady(1, 9, 299.0)[0] == 9
    assert stabiliser.steady(1, 9, 301.0)[0] == 8


def test_a_process_that_has_just_begun_lets_nobody_go_for_it():
    fresh = decider(Says("demand", 1), behavior=Behavior())
    fresh.found(Signals(0.0, ready=6, starting=2), 0.0)
    assert fresh.decide(Signals(0.0, ready=6, starting=2), 0.0).replicas == 8, "it has seen a second of traffic"
    assert fresh.decide(Signals(299.0, ready=8), 299.0).replicas == 8
    assert fresh.decide(Signals(301.0, ready=8), 301.0).replicas == 1


def test_an_empty_fleet_waits_for_no_window():
    says = Says("demand", 0)
    patient = decider(says, behavior=Behavior(Direction(window_s=60)))
    patient.decide(Signals(0.0), 0.0)
    says.replicas = 3
    assert patient.decide(Signals(5.0), 5.0).replicas == 1
    assert patient.decide(Signals(6.0, starting=1), 6.0).replicas == 1
    assert patient.decide(Signals(66.0, ready=1), 66.0).replicas == 3


def test_floors_alone_take_nothing_away():
    floor, cap = Wanted(2, "launch", "event", is_floor=True), Wanted(0, "night", "schedule", 4)
    assert combine([floor], 6).replicas == 6
    assert "nobody says that fewer will do" in combine([floor], 6).reason
    assert combine([floor], 1) == floor
    assert combine([floor, Wanted(1, "quiet", "demand")], 6).replicas == 2
    assert combine([floor, cap], 6).replicas == 2
    assert combine([Wanted(2, "", "schedule", 4, is_floor=True)], 6).replicas == 4, "a cap is kept all the same"


def test_no_more_than_a_step_in_a_period():
    stabiliser = Stabiliser(Behavior(Direction(max_step=2, period_s=60), Direction(max_step=1, period_s=120)))
    actual = 1
    seen = []
    for second in range(0, 181, 30):
        replicas, _ = stabiliser.steady(9, actual, float(second))
        stabiliser.done(replicas - actual, float(second))
        actual = replicas
        seen.append(actual)
    assert seen == [3, 3, 5, 5, 7, 7, 9]
    assert stabiliser.steady(2, 9, 190.0) == (8, "2 by at most 1 in 120 s")


def test_min_and_max():
    found = decider(Says("a", 50), min=2, max=8).decide(Signals(0.0, ready=1), 0.0)
    assert (found.replicas, found.limits) == (8, ("max 8",))
    assert decider(Says("a", 0), min=2, max=8).decide(Signals(0.0, ready=5), 0.0).replicas == 2
    assert decider(min=2, max=8).decide(Signals(0.0), 0.0).replicas == 2, "also where nobody has an opinion"


def test_a_pause_changes_nothing_whatever_is_wanted():
    paused = decider(Says("a", 9), min=3)
    paused.guardrails.paused = True
    for ready in (0, 1, 20):
        found = paused.decide(Signals(0.0, ready=ready), 0.0)
        assert found.change == 0
    assert found.limits == ("paused",)


def test_changes_in_an_hour_are_counted_each_way():
    one = decider(Says("a", 9), changes_per_hour=3)
    assert one.decide(Signals(0.0, ready=1), 0.0).replicas == 4
    one.done(3, 0.0)
    assert one.decide(Signals(0.0, ready=4), 3599.0).change == 0
    assert one.decide(Signals(0.0, ready=4), 3600.0).change == 3


def test_never_more_than_an_hour_pays_for():
    found = decider(Says("a", 9), min=1, budget=Budget(price=2.5, per_hour=20)).decide(
        Signals(0.0, ready=1, draining=1), 0.0
    )
    assert found.replicas == 7, "eight are paid for, and one of them drains"
    assert "budget" in found.reason


def test_a_month_that_is_spent_stops_even_the_minimum():
    one = decider(Says("a", 9), min=1, budget=Budget(price=3600.0, per_month=100))
    assert one.decide(Signals(0.0, unix_s=0.0, ready=0), 0.0).replicas == 0, "not even one can be paid to the end"
    purse = Purse(Budget(price=3600.0, per_month=100))
    purse.pay(5, 0.0)
    purse.pay(5, 20.0)
    assert purse.spent.month == pytest.approx(100)
    assert purse.affordable(1, 20.0) == 0


def test_the_last_money_is_kept_for_those_that_drain():
    """An hour's worth would be spent on serving, and they would drain on credit."""
    purse = Purse(Budget(price=1.0, per_month=13.5))
    begin = month_of(1e9)[0]
    purse.pay(0, begin)
    assert purse.affordable(0, begin) == 2
    purse.pay(2, begin + 3600.0)
    assert purse.affordable(0, begin + 3600.0) == 1
    for hour in range(2, 6):
        purse.pay(2, begin + hour * 3600.0)
    assert purse.affordable(0, begin + 5 * 3600.0) == 0
    assert purse.affordable(0, month_of(1e9)[1] - 60.0) <= 2, "nor does the next month pay for more than it can"
    small = Purse(Budget(price=1.5, per_month=0.5))
    assert small.affordable(1, month_of(1e9)[1] - 60.0) == 0, "nor for a minimum that it cannot pay seven hours of"


@pytest.mark.parametrize("replicas", [1, 7, 20])
def test_a_month_s_money_lasts_however_late_each_look_is(replicas):
    """Looks an hour apart, and what one lets go is gone by the second one after it."""
    purse = Purse(Budget(price=1.0, per_month=7.0 * replicas))
    begin = month_of(1e9)[0]
    serving, leaving, before, paid = replicas, 0, 0, 0
    for hour in range(200):
        purse.pay(serving + leaving, begin + hour * 3600.0)
        allowed = min(max(purse.affordable(0, begin + hour * 3600.0) - before, 0), serving)
        serving, leaving, before = allowed, before + serving - allowed, serving - allowed
        paid += serving + leaving
    assert paid <= 7.0 * replicas


def test_who_ended_between_two_looks_is_paid_until_the_second():
    def spent(*looks):
        purse = Purse(Budget(price=3600.0, per_month=1e6))
        for unix_s, replicas, leaving in looks:
            purse.pay(replicas, unix_s, leaving=3600.0 * leaving)
        return purse.spent.month

    assert spent((0.0, 3, 0), (10.0, 2, 0)) == pytest.approx(30)
    assert spent((0.0, 3, 0), (10.0, 2, 0), (20.0, 2, 0)) == pytest.approx(50)
    assert spent((0.0, 3, 0), (10.0, 3, 1), (20.0, 2, 0)) == pytest.approx(60)
    assert spent((0.0, 3, 1), (10.0, 4, 0)) == pytest.approx(50), "one ended, and two came"


def test_alerts_come_once_in_a_month():
    purse = Purse(Budget(price=3600.0, per_month=100, alert_at=(0.5, 0.8, 1.0)))
    said = [purse.pay(1, float(second)) for second in range(0, 121, 10)]
    assert [len(one) for one in said] == [0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0]
    assert "50%" in said[5][0]
    assert purse.pay(0, 120.0) == []
    assert purse.pay(0, month_of(0.0)[1] + 1) == []
    assert purse.spent.month == 0


def test_months_are_those_of_the_calendar():
    day = datetime(1999, 12, 1, tzinfo=UTC)
    for _ in range(3000):
        begin, end = month_of(day.timestamp() + 3600)
        first = datetime.fromtimestamp(begin, UTC)
        last = datetime.fromtimestamp(end - 1, UTC)
        assert (first.year, first.month, first.day, first.hour) == (day.year, day.month, 1, 0)
        assert (last.month, last.hour, last.minute) == (day.month, 23, 59)
        assert (last + timedelta(seconds=1)).day == 1
        day += timedelta(days=1)


def test_the_meter_counts_whole_seconds_empty_ones_too():
    meter = DemandMeter(0.0)
    assert meter.demand(0.5).last_10s.requests_per_s is None
    for second in range(60):
        meter.count(second + 0.5, 6 if second >= 50 else 0, prefill_tokens=100)
    demand = meter.demand(60.0)
    assert demand.last_10s.requests_per_s == pytest.approx(6)
    assert demand.last_60s.requests_per_s == pytest.approx(1)
    assert demand.last_60s.prefill_tokens_per_s == pytest.approx(100)
    assert demand.last_60s.decode_tokens_per_s is None
    assert demand.deviation_1s.requests_per_s == pytest.approx((36 * 10 / 60 - 1) ** 0.5)
    later = meter.demand(10_000.0)
    assert later.last_60s.requests_per_s == pytest.approx(0)
    assert later.deviation_1s.requests_per_s == pytest.approx(0)


def test_what_a_replica_sustains_is_learned_where_it_shows():
    capacity = Capacity()
    capacity.observe(Rates(2.0), 1, saturated=False, in_time=True, interval_s=5)
    assert capacity.rates == Rates(), "an idle replica says nothing"
    capacity.observe(Rates(8.0), 2, saturated=True, in_time=False, interval_s=5)
    assert capacity.rates == Rates(4.0)
    for _ in range(200):
        capacity.observe(Rates(12.0), 2, saturated=True, in_time=False, interval_s=5)
    assert capacity.rates.requests_per_s == pytest.approx(6, rel=0.01)
    capacity.observe(Rates(14.0), 2, saturated=False, in_time=True, interval_s=5)
    assert capacity.rates.requests_per_s == pytest.approx(7)
    capacity.observe(Rates(20.0), 2, saturated=False, in_time=False, interval_s=5)
    assert capacity.rates.requests_per_s == pytest.approx(7)
    assert Capacity(Rates(3.0)).rates == Rates(3.0)


def test_short_prompts_say_nothing_about_how_many_tokens_can_be_computed():
    capacity = Capacity()
    capacity.observe(Rates(4.0, 400.0, 200.0), 1, saturated=True, in_time=False, interval_s=10)
    for _ in range(200):  # from now on the prefix cache holds nearly all of them
        capacity.observe(Rates(4.0, 20.0, 200.0), 1, saturated=True, in_time=False, interval_s=10)
    assert capacity.rates == Rates(4.0, 400.0, 200.0)
    for _ in range(200):  # the engine has become slower, whatever was its limit
        capacity.observe(Rates(2.0, 20.0, 90.0), 1, saturated=True, in_time=False, interval_s=10)
    found = capacity.rates
    assert (found.requests_per_s, found.prefill_tokens_per_s) == (
        pytest.approx(2.0, rel=0.01),
        pytest.approx(200, 0.01),
    )
    for _ in range(200):
        capacity.observe(Rates(1.0, 600.0, 90.0), 1, saturated=True, in_time=False, interval_s=10)
    assert capacity.rates.prefill_tokens_per_s == pytest.approx(600, rel=0.01)


def test_what_was_learned_goes_on_after_a_restart():
    capacity = Capacity(Rates(3.0, decode_tokens_per_s=50.0))
    assert capacity.learned == Rates()
    capacity.observe(Rates(8.0, 400.0), 2, saturated=True, in_time=False, interval_s=60)
    assert capacity.learned == Rates(capacity.rates.requests_per_s, 200.0)
    later = Capacity(Rates(requests_per_s=5.0))
    later.resume(capacity.learned)
    assert later.rates == Rates(5.0, 200.0), "what is configured counts"
    later.believe(Rates(prefill_tokens_per_s=150.0))
    assert (later.rates, later.learned) == (Rates(5.0, 150.0), Rates())
    later.resume(Rates(-1.0, float("nan"), float("inf")))
    assert later.rates == Rates(5.0, 150.0)


def test_of_few_requests_the_luckiest_moments_tell_nothing():
    rng, capacity = random.Random(1), Capacity()
    for _ in range(300):
        ended = sum(rng.random() < 0.1 for _ in range(13))  # of 8 places, answers of a minute: 1.3 in ten seconds
        tokens = sum(rng.expovariate(1 / 300) for _ in range(ended))
        capacity.observe(Rates(ended / 10, tokens, tokens / 2), 1, saturated=True, in_time=False, interval_s=10)
    assert capacity.rates.requests_per_s == pytest.approx(0.13, rel=0.25)


def test_a_cap_alone_is_no_wish_for_nobody():
    schedule = build("schedule", [{"cron": "* * * * *", "max": 4}])
    assert decider(schedule).decide(Signals(0.0, unix_s=1e9, ready=3), 0.0).replicas == 3
    assert decider(schedule).decide(Signals(0.0, unix_s=1e9, ready=6), 0.0).replicas == 4
