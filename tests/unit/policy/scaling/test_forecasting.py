"""The forecast, what it has to beat, and what it remembers."""

import random
from math import pi, sin

from llmproxy.policy.scaling.base import Demand, Rates, Signals
from llmproxy.policy.scaling.forecast import Minute
from llmproxy.policy.scaling.forecaster import Forecaster
from llmproxy.policy.scaling.registry import build
from llmproxy.policy.scaling.series import History, Series, Style


def daily(minute, rng):
    """A day's wave with noise."""
    return 40 + 25 * sin(2 * pi * minute / 1440) + rng.gauss(0, 3)


def signals(rate, minute, mu=4.0, cold_start_s=120.0):
    demand = Demand(Rates(rate), Rates(rate), Rates(0.0))
    now = minute * 60.0
    return Signals(now=now, unix_s=now, ready=1, demand=demand, sustainable=Rates(mu), cold_start_s=cold_start_s)


def test_a_trend_goes_on_but_not_for_ever():
    series = Series(Style(0.5))
    for minute in range(200):
        series.add(10.0 * minute)
    near, far = series.ahead(1, 0.0), series.ahead(1000, 0.0)
    assert near > series.ahead(0, 0.0)
    assert far < 1990 + 10 * 20


def test_yesterdays_rise_is_half_expected():
    history = History(1440)
    for minute in range(3000):
        history.add(100.0 if minute % 1440 >= 600 else 0.0)
    # The last minute is 2999, 119 into the day. Go on to just before the rise.
    for minute in range(3000, 2 * 1440 + 590):
        history.add(0.0 if minute % 1440 < 600 else 100.0)
    assert history.rise(30) == 100.0
    series = Series(Style(0.5, 0.5))
    series.add(0.0)
    assert series.ahead(30, history.rise(30)) == 50.0


def test_it_may_not_act_before_it_was_judged():
    forecaster = Forecaster(3, 1440, 0.95)
    for _ in range(80):
        forecaster.add(5.0)
    assert forecaster.skill is None
    assert not forecaster.may_act


def test_noise_is_smoothed_better_than_no_forecast_does():
    rng = random.Random(1)
    forecaster = Forecaster(3, 1440, 0.95)
    for minute in range(2000):
        forecaster.add(daily(minute, rng))
    assert forecaster.may_act
    assert forecaster.skill > 0.05


def test_what_is_worse_than_no_forecast_may_not_act():
    """Steps at random: the last value is all there is to know, and smoothing only lags behind it."""
    rng = random.Random(2)
    forecaster, level = Forecaster(3, 1440, 0.95), 500.0
    for _ in range(3000):
        if rng.random() < 0.2:
            level = max(level + rng.choice((-100.0, 100.0)), 0.0)
        forecaster.add(level)
    assert forecaster.skill is not None
    assert forecaster.skill <= 0
    assert not forecaster.may_act


def test_demand_hardly_exceeds_what_it_says():
    rng = random.Random(3)
    values = [daily(minute, rng) for minute in range(6000)]
    forecaster, exceeded = Forecaster(3, 1440, 0.95), 0
    for minute, value in enumerate(values[:-3]):
        forecaster.add(value)
        if minute >= 2000:
            exceeded += values[minute + 3] > forecaster.ahead
    assert 0.03 < exceeded / 3997 < 0.08


def test_wants_what_will_be_needed():
    rng = random.Random(4)
    policy = build("forecast", {"horizon": "cold_start + 60s", "season": "24h"})
    rate, found = 0.0, None
    for minute in range(2000):
        rate = daily(minute, rng)
        found = policy.want(signals(rate, minute), minute * 60.0)
    assert found is not None
    assert found.policy == "forecast"
    assert rate / 4 < found.replicas < 1.5 * rate / 4
    assert "expected" in found.reason


def test_many_evaluations_in_a_minute_are_one_minute():
    policy = build("forecast", {})
    for second in range(0, 600, 5):
        policy.want(signals(5.0, second / 60), float(second))
    assert len(policy.new_minutes()) == 10
    assert policy.new_minutes() == []


def test_a_restart_costs_nothing_with_its_history():
    rng = random.Random(5)
    values = [daily(minute, rng) for minute in range(2000)]
    one, other = build("forecast", {}), build("forecast", {})
    for minute, value in enumerate(values[:-1]):
        one.want(signals(value, minute), minute * 60.0)
    other.restore(one.new_minutes())
    last = signals(values[-1], len(values) - 1)
    assert other.want(last, last.now) == one.want(last, last.now)
    assert other.skill() == one.skill()


def test_a_short_gap_is_filled_and_a_long_one_begins_anew():
    policy = build("forecast", {})
    policy.restore(Minute(number, Rates(5.0)) for number in range(200))
    policy.want(signals(5.0, 205), 0.0)
    assert policy.skill()["requests_per_s"] is not None
    policy.want(signals(5.0, 300), 0.0)
    assert policy.skill()["requests_per_s"] is None


def test_another_cold_start_is_another_horizon_learned_from_the_history():
    policy = build("forecast", {})
    for minute in range(300):
        policy.want(signals(5.0, minute), minute * 60.0)
    policy.want(signals(5.0, 300, cold_start_s=600.0), 300 * 60.0)
    assert policy.skill()["requests_per_s"] is not None
