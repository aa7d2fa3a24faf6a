"""What a pool could change: found where there is something to find, and never at the price of the objective."""

from random import Random

import pytest

from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.stabiliser import Behavior, Direction
from llmproxy.sim.scaling.fleet import Model
from llmproxy.sim.scaling.recommend import Setup, play, recommend
from llmproxy.sim.scaling.traffic import Rates, Window, arrivals

MODEL = Model(cold_start_s=60)
DEMAND = (("demand", None),)
DEFAULT = (("demand", None), ("forecast", None))
SLOW = Behavior(down=Direction(window_s=300.0))


def day(busy: float, quiet: float, *, from_h: int = 9, to_h: int = 11, hours: int = 14) -> list[int]:
    windows = [Window(hour * 3600.0, busy if from_h <= hour % 24 < to_h else quiet, 1.0) for hour in range(hours)]
    rates = Rates("day", tuple(windows), hours * 3600.0)
    return arrivals(rates, rates.mean, Random(1))


def test_a_minimum_that_nobody_needs_is_lowered() -> None:
    advice = recommend(Setup(DEFAULT, 6, 12, SLOW), MODEL, day(4.0, 4.0, hours=2))
    best = advice.each[0]
    assert best.change.startswith("min: ")
    assert best.saved_hours > 0.4 * advice.now.replica_hours
    assert best.slo_attained >= advice.floor == 0.995


def test_one_that_is_needed_in_some_hours_becomes_a_schedule() -> None:
    # The jump at 3 is ten times what was before: who starts then is two minutes late.
    traffic = day(36.0, 3.0, from_h=3, to_h=4, hours=6)
    advice = recommend(Setup(DEMAND, 11, 14, SLOW), MODEL, traffic)
    changes = [one.change for one in advice.each]
    scheduled = [one for one in advice.each if "schedule" in one.change]
    assert scheduled, changes
    assert "0 2 * * *: min 11" in scheduled[0].change
    assert scheduled[0].saved_hours > 0.2 * advice.now.replica_hours
    assert not any(change == "min: 1" for change in changes)


def test_what_is_said_holds_when_it_is_played_again() -> None:
    traffic = day(30.0, 6.0, from_h=1, to_h=2, hours=3)
    advice = recommend(Setup(DEMAND, 4, 14, SLOW), MODEL, traffic)
    for one in (*advice.each, *([advice.together] if advice.together else [])):
        again = play(one.setup, MODEL, traffic, 0.0)
        assert again.slo_attained == one.slo_attained >= advice.floor
        assert advice.now.replica_hours - again.replica_hours == pytest.approx(one.saved_hours)
    assert advice.together is None or advice.together.saved_hours >= advice.each[0].saved_hours


def test_where_the_objective_is_missed_nothing_makes_it_worse() -> None:
    traffic = day(36.0, 3.0, from_h=1, to_h=2, hours=3)
    advice = recommend(Setup(DEMAND, 1, 5, SLOW), MODEL, traffic)
    assert advice.now.slo_attained < 0.9
    assert advice.now.at_most > 0.1
    assert advice.floor == advice.now.slo_attained
    assert all(one.slo_attained >= advice.floor for one in advice.each)


def test_a_budget_is_kept_to_in_the_replay() -> None:
    traffic = day(30.0, 6.0, from_h=1, to_h=2, hours=3)
    free = play(Setup(DEMAND, 1, 14, SLOW), MODEL, traffic, 0.0)
    tight = play(Setup(DEMAND, 1, 14, SLOW, budget=Budget(2.0, per_hour=6.0)), MODEL, traffic, 0.0)
    assert free.replica_hours > 9.5, "more than three at a time"
    assert tight.replica_hours <= 9.5
    assert tight.slo_attained < free.slo_attained


def test_a_tight_pool_is_left_alone() -> None:
    advice = recommend(
        Setup((("target", {"signal": "in_flight_per_replica", "value": 30}),), 1, 4), MODEL, day(3.0, 3.0, hours=2)
    )
    assert advice.each == ()
    assert advice.together is None
