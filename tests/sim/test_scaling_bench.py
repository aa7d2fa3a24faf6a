"""The daily case, and hours at equal SLO."""

import pytest

from bench.scaling.daily import day
from bench.scaling.frontier import Point, best, hours_at


def test_the_daily_case():
    one = day()
    assert one.late == 0
    assert one.saved >= 0.44
    assert one.in_slo >= 0.999


def test_hours_between_two_that_are_best():
    points = [Point(0.99, 100, "a"), Point(0.98, 90, "b"), Point(0.985, 120, "beaten"), Point(0.97, 85, "c")]
    assert [point.label for point in best(points)] == ["c", "b", "a"]
    assert hours_at(points, 0.985) == pytest.approx((90 * 100) ** 0.5)
    assert hours_at(points, 0.9) == 85
    assert hours_at(points, 0.995) is None


def test_options_tried_in_between_make_no_rival_worse():
    points = [Point(0.99, 100, "a"), Point(0.98, 50, "b")]
    assert hours_at([*points, Point(0.986, 98, "beaten by no one")], 0.985) == hours_at(points, 0.985)
    assert hours_at([*points, Point(0.986, 60, "better")], 0.985) < hours_at(points, 0.985)
