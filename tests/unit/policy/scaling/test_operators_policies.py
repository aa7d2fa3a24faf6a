"""`rules`, `hold`, `steps`, `target` and `schedule`: what each wants."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from llmproxy.policy.scaling.base import ScalingPolicy, Signals, Wanted
from llmproxy.policy.scaling.options import OptionError, parse_options
from llmproxy.policy.scaling.rules import Hold, Rules
from llmproxy.policy.scaling.schedule import Schedule
from llmproxy.policy.scaling.steps import Steps
from llmproxy.policy.scaling.target import Target

BASE = Signals(now=0.0, ready=2, queue_depth=0, in_flight=0)


def made(policy: Any, options: Any) -> ScalingPolicy:
    found: ScalingPolicy = policy(parse_options(policy.options_type, options, policy.__name__.lower()))
    return found


def wants(policy: ScalingPolicy, now: float = 0.0, **signals: Any) -> int | None:
    wanted = policy.want(replace(BASE, now=now, **signals), now)
    return None if wanted is None else wanted.replicas


def test_rules_want_one_more_and_again_after_each_period() -> None:
    rules = made(Rules, {"up": "queue_depth > 50"})
    assert wants(rules, 0.0, queue_depth=51) == 3
    assert wants(rules, 5.0, queue_depth=51, starting=1) == 3
    assert wants(rules, 10.0, queue_depth=0, starting=1) == 3, "a step up stands for its period"
    assert wants(rules, 59.0, queue_depth=51, starting=1) == 3
    assert wants(rules, 60.0, queue_depth=51, ready=3) == 4
    assert wants(rules, 120.0, queue_depth=0, ready=4) is None


def test_rules_go_down_by_step_and_stop_when_the_reason_is_gone() -> None:
    rules = made(Rules, {"down": "queue_depth < 5", "step": 2, "down_period": "30s"})
    assert wants(rules, 0.0, ready=5) == 3
    assert wants(rules, 10.0, ready=3) == 3
    assert wants(rules, 15.0, ready=3, queue_depth=9) is None
    assert wants(rules, 30.0, ready=1) == 0


def test_up_wins_over_down() -> None:
    rules = made(Rules, {"up": "queue_depth > 5", "down": "in_flight < 5"})
    wanted = rules.want(replace(BASE, queue_depth=9), 0.0)
    assert wanted == Wanted(3, "+1: queue_depth > 5", "rules")


def test_hold_is_rules_by_another_name() -> None:
    hold = made(Hold, {"up": "avg(queue_depth) > 5 for 60s", "down": "queue_depth == 0 for 10m"})
    seen = [hold.want(replace(BASE, now=float(now), queue_depth=9), float(now)) for now in range(0, 70, 5)]
    assert seen[:11] == [None] * 11
    assert seen[-1] == Wanted(3, "+1: avg(queue_depth) > 5 for 60s", "hold")


def test_steps() -> None:
    steps = made(Steps, {"signal": "queue_depth", "table": {"0": 2, "50": 10, "5": 4, "20": 8}})
    assert [wants(steps, queue_depth=depth) for depth in (0, 4, 5, 19, 20, 50, 900)] == [2, 2, 4, 4, 8, 10, 10]
    assert wants(steps, queue_depth=None) is None
    shares = made(Steps, {"signal": "gpu_utilization", "table": {"50%": 3}})
    assert wants(shares, gpu_utilization=0.4) is None
    assert wants(shares, gpu_utilization=0.5) == 3


def test_target_is_what_serves_times_the_signal_over_its_target() -> None:
    target = made(Target, {"signal": "in_flight_per_replica", "value": 24})
    assert wants(target, in_flight=48) == 2
    assert wants(target, in_flight=52) == 2, "within the tolerance"
    assert wants(target, in_flight=44) == 2, "within the tolerance"
    assert wants(target, in_flight=60) == 3
    assert wants(target, in_flight=96) == 4
    assert wants(target, in_flight=96, starting=2) == 4, "those on their way are counted"
    assert wants(target, in_flight=10) == 1
    assert wants(target, in_flight=0) == 0
    assert wants(target, ready=0, in_flight=10) is None


def karachi(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Asia/Karachi")).timestamp()


OFFICE = [
    {"cron": "0 9 * * 1-5", "tz": "Asia/Karachi", "min": 4, "max": 10},
    {"cron": "0 18 * * 1-5", "tz": "Asia/Karachi", "min": 2, "max": 4},
    {"cron": "45 6 * * *", "tz": "Asia/Karachi", "prewarm": 3},
]


@pytest.mark.parametrize(
    ("now", "replicas", "cap"),
    [
        ("2026-03-04T09:00", 4, 10),
        ("2026-03-04T17:59", 4, 10),
        ("2026-03-04T18:00", 2, 4),
        ("2026-03-05T06:44", 2, 4),
        ("2026-03-05T06:45", 3, 4),
        ("2026-03-05T07:44", 3, 4),
        ("2026-03-05T07:45", 2, 4),
        ("2026-03-08T12:00", 2, 4),
    ],
)
def test_the_entry_that_came_round_last_is_in_force(now: str, replicas: int, cap: int) -> None:
    wanted = made(Schedule, OFFICE).want(replace(BASE, unix_s=karachi(now)), 0.0)
    assert wanted is not None
    assert (wanted.replicas, wanted.cap) == (replicas, cap)


def test_a_schedule_without_a_clock_has_no_opinion() -> None:
    assert wants(made(Schedule, OFFICE)) is None


def test_an_entry_ends_with_its_for() -> None:
    schedule = made(Schedule, [{"cron": "0 9 * * *", "min": 4, "for": "2h"}])
    assert wants(schedule, unix_s=10 * 3600.0) == 4
    assert wants(schedule, unix_s=11 * 3600.0) is None


def test_a_prewarm_is_above_a_cap() -> None:
    entries = [{"cron": "0 0 * * *", "max": 2}, {"cron": "0 9 * * *", "prewarm": 5}]
    wanted = made(Schedule, entries).want(replace(BASE, unix_s=9.5 * 3600.0), 0.0)
    assert wanted is not None
    assert (wanted.replicas, wanted.cap) == (5, 5)


@pytest.mark.parametrize(
    ("policy", "options", "words"),
    [
        (Rules, {}, "needs `up`, `down` or both"),
        (
            Rules,
            {"up": "queue_dept > 5"},
            "option up: there is no signal 'queue_dept'; did you mean 'queue_depth'? (column 1)",
        ),
        (Rules, {"up": "queue_depth > 5", "step": 0}, "at least 1"),
        (Rules, {"over": "x"}, "no option 'over'"),
        (Steps, {"signal": "queue", "table": {"0": 1}}, "no signal"),
        (Steps, {"signal": "queue_depth", "table": {"x": 1}}, "option table: 'x' must be"),
        (Steps, {"signal": "queue_depth", "table": {"1": -1}}, "-1 must be a whole number"),
        (Steps, {"signal": "queue_depth", "table": {"1": 1, "1.0": 2}}, "two rows"),
        (Target, {"signal": "queue_depth", "value": 0}, "more than 0"),
        (Schedule, {}, "must be a list"),
        (Schedule, [{"cron": "0 9 * *", "min": 1}], "entry 1: cron '0 9 * *': five fields"),
        (Schedule, [{"cron": "0 9 * * *"}], "entry 1: needs min, max or both"),
        (Schedule, [{"cron": "0 9 * * *", "min": 3, "max": 2}], "max is less than min"),
        (Schedule, [{"cron": "0 9 * * *", "min": 3, "tz": "Mars/Base"}], "no time zone"),
        (Schedule, [{"cron": "0 9 * * *", "mni": 3}], "unknown key 'mni'; did you mean \"min\"?"),
    ],
)
def test_mistakes_are_named(policy: Any, options: Any, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        made(policy, options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("signal", "amount", "complaint"),
    [
        ("gpu_utilization", 70, "gpu_utilization is a share: write 70%, not 70"),
        ("gpu_utilization", "800ms", "a share, and is compared with a time"),
        ("queue_depth", "5s", "a plain number, and is compared with a time"),
        ("queue_depth", "70%", "a plain number, and is compared with a share"),
        ("p95_latency", "70%", "a time, and is compared with a share"),
        ("gpu_utilization", "70%", None),
        ("gpu_utilization", 0.7, None),
        ("p95_latency", "800ms", None),
        ("p95_latency", 2, None),
        ("in_flight_per_replica", "24", None),
        ("prometheus.load", "5m", None),
    ],
)
def test_what_a_signal_is_compared_with_is_like_it(signal: str, amount: Any, complaint: str | None) -> None:
    for policy, options in (
        (Target, {"signal": signal, "value": amount}),
        (Steps, {"signal": signal, "table": {0: 1, amount: 2}}),
    ):
        if complaint is None:
            made(policy, options)
            continue
        with pytest.raises(OptionError) as caught:
            made(policy, options)
        assert complaint in str(caught.value)


def test_a_tolerance_of_all_there_is_is_a_mistake() -> None:
    with pytest.raises(OptionError, match="less than 100%"):
        made(Target, {"signal": "in_flight_per_replica", "value": 24, "tolerance": 10})
