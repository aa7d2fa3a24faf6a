"""Conditions: what may be written, what every mistake says and where, and how they keep time."""

import pytest

from llmproxy.policy.scaling.condition import Condition
from llmproxy.policy.scaling.expression import names, parse
from llmproxy.policy.scaling.named import units
from llmproxy.policy.scaling.tokens import ExpressionError


class Meter:
    """A condition asked once a second, with signals that a test sets."""

    def __init__(self, text: str, **values: float | None) -> None:
        self.condition = Condition(text, units())
        self.values: dict[str, float | None] = dict(values)
        self.now = 1000.0

    def holds(self, **values: float | None) -> bool:
        self.values |= values
        return self.condition.holds(self.values.get, self.now)

    def after(self, seconds: int, **values: float | None) -> bool:
        """Whether it holds after being asked each second for so long."""
        self.values |= values
        held = False
        for _ in range(seconds):
            self.now += 1.0
            held = self.holds()
        return held


def test_or_binds_weaker_than_and() -> None:
    meter = Meter("queue_depth > 50 or queue_depth > 5 and in_flight > 5", queue_depth=60.0, in_flight=0.0)
    assert meter.holds()
    assert not meter.holds(queue_depth=6.0)
    assert meter.holds(in_flight=6.0)


def test_not_and_parentheses() -> None:
    meter = Meter("NOT (queue_depth > 5 OR in_flight > 5) and replicas >= 2")
    assert meter.holds(queue_depth=1.0, in_flight=1.0, replicas=2.0)
    assert not meter.holds(queue_depth=6.0)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("gpu_utilization > 70%", 0.71, True),
        ("gpu_utilization > 70%", 0.7, False),
        ("gpu_utilization >= 0.7%", 0.007, True),
        ("70% < gpu_utilization", 0.71, True),
        ("p95_latency > 800ms", 0.801, True),
        ("p95_latency > 800ms", 0.8, False),
        ("p95_latency != 2s", 2.0, False),
        ("queue_depth == 0", 0.0, True),
        ("queue_wait > 0", 0.1, True),
        ("queue_depth <= 5", 5.0, True),
    ],
)
def test_units_and_signs(text: str, value: float, holds: bool) -> None:
    [name] = names(parse(text, units()))
    assert Meter(text, **{name: value}).holds() is holds


def test_the_issues_rule() -> None:
    up = Meter("gpu_utilization > 70% or p95_latency > 800ms or queue_depth > 50")
    assert not up.holds()
    assert up.holds(queue_depth=51.0)
    down = Meter("gpu_utilization < 35% for 5m and queue_depth < 5", gpu_utilization=0.2, queue_depth=0.0)
    assert not down.after(280)
    assert down.after(25)
    assert not down.holds(queue_depth=9.0)
    assert down.holds(queue_depth=4.0)


def test_for_begins_anew_when_it_breaks_off() -> None:
    meter = Meter("queue_depth == 0 for 60s", queue_depth=0.0)
    meter.after(50)
    assert not meter.after(1, queue_depth=1.0)
    assert not meter.after(50, queue_depth=0.0)
    assert meter.after(15)


def test_for_begins_anew_when_nothing_is_known() -> None:
    meter = Meter("gpu_utilization < 35% for 60s", gpu_utilization=0.1)
    meter.after(59)
    meter.after(1, gpu_utilization=None)
    assert not meter.after(50, gpu_utilization=0.1)


def test_for_behind_a_function_is_its_window() -> None:
    meter = Meter("avg(queue_depth) > 5 for 60s", queue_depth=100.0)
    assert not meter.after(50)
    assert meter.after(12)
    meter = Meter("avg(queue_depth) > 5 for 60s", queue_depth=0.0)
    meter.after(58)
    assert meter.after(4, queue_depth=100.0), "4 of 60 seconds at 100 are 6.7 on average"


def test_a_window_and_a_for() -> None:
    meter = Meter("max(queue_depth, 10s) > 5 for 30s", queue_depth=9.0)
    assert not meter.after(25)
    assert meter.after(20)


def test_p95_leaves_out_the_worst() -> None:
    meter = Meter("p95(queue_depth, 100s) > 5", queue_depth=0.0)
    meter.after(100)
    assert not meter.after(4, queue_depth=50.0)
    assert meter.after(3)


def test_a_group_is_held_together() -> None:
    meter = Meter("(queue_depth > 5 or in_flight > 5) for 20s", queue_depth=9.0, in_flight=0.0)
    meter.after(12)
    assert meter.after(9, queue_depth=0.0, in_flight=9.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("queue_depth > 5", False), ("not queue_depth > 5", False), ("in_flight > 5 or queue_depth > 5", True)],
)
def test_what_is_unknown_decides_nothing(text: str, expected: bool) -> None:
    assert Meter(text, in_flight=9.0).holds() is expected


def test_a_query_is_a_signal_of_any_unit() -> None:
    assert Condition("prometheus.batch_jobs > 3", units()).holds({"prometheus.batch_jobs": 4.0}.get, 0.0)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "not the end"),
        ("queue_dept > 5", 1, "did you mean 'queue_depth'"),
        ("queue_depth >", 14, "not the end"),
        ("queue_depth > 5 queue_depth", 17, "'and' or 'or'"),
        ("queue_depth = 5", 13, "=="),
        ("queue_depth", 12, "a comparison"),
        ("queue_depth > 5 for", 20, "a time"),
        ("queue_depth > 5 for 60", 21, "a time"),
        ("queue_depth > 5 for 0s", 21, "longer than nothing"),
        ("gpu_utilization > 70", 19, "write 70%"),
        ("gpu_utilization > 0.7", 19, "write 70%"),
        ("avg(queue_depth, 25h) > 1", 16, "a day at most"),
        ("avg(queue_depth) > 1 for 2d", 22, "a day at most"),
        ("p95_latency > 800", 15, "write 800ms or 800s"),
        ("queue_depth > 5s", 15, "a plain number, and 5s is not"),
        ("queue_depth > p95_latency", 15, "cannot be compared"),
        ("5 > 3", 1, "never changes"),
        ("1 < queue_depth < 5", 17, "one comparison at a time"),
        ("(queue_depth > 5", 17, "')' must stand here"),
        ("avgs(queue_depth) > 5", 1, "did you mean 'avg'"),
        ("avg(5) > 5", 5, "of a signal"),
        ("__import__('os')", 12, "means nothing here"),
        ("queue_depth > 5 or ; ", 20, "means nothing here"),
        ("queue_depth > 5x", 15, "may end in"),
        ("and > 5", 1, "not 'and'"),
        ("(" * 40 + "queue_depth > 5" + ")" * 40, 32, "nested"),
        ("queue_depth > 1 or " * 200 + "queue_depth > 1", 2000, "longer than"),
    ],
)
def test_mistakes_point_at_their_column(text: str, column: int, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text, units())
    assert words in str(caught.value)
    assert caught.value.column == column
