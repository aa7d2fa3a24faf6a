"""What proxies say of their traffic, and what it adds up to."""

import json
from typing import Any

from llmproxy.control.scaling.elsewhere import Elsewhere, Sample, counters_of
from llmproxy.control.scaling.reports import LOST_AFTER_S, Report, Reports
from llmproxy.control.scaling.tables import LocalTable


def sample(arrived: float, ttft: tuple[int, ...] = ()) -> Sample:
    return Sample(0.0, arrived, arrived, 0.0, 0.0, arrived * 10, arrived * 5, arrived * 2, ttft, ttft)


def report(arrived: float, ttft: tuple[int, ...] = (), **more: Any) -> Report:
    return Report(counters_of(sample(arrived, ttft)), (ttft, ttft), **more)


def heard(table: LocalTable, mine: str) -> Reports:
    reports = Reports(table, mine)
    reports.hear(0.0)
    return reports


def test_each_hears_the_others() -> None:
    table = LocalTable()
    one, other = Reports(table, "one"), Reports(table, "other")
    at = {"r1": ("serving", 1), "r2": ("serving", 0)}
    one.say(report(3, waiting=2, wait_s=1.5, at=at, sessions={"r1": 7, "of another pool": 1}))
    other.say(report(4))
    other.hear(0.0)
    [(name, found)] = other.others(0.0).items()
    assert (name, found.waiting, found.wait_s, found.at["r1"]) == ("one", 2, 1.5, ("serving", 1))
    assert list(found.counters) == counters_of(sample(3))
    assert found.sessions == {"r1": 7}
    sums = Elsewhere()
    sums.take({"one": found, "third": found})
    assert sums.sessions == {"r1": 14}


def test_a_proxy_of_an_earlier_version_knows_of_no_sessions() -> None:
    table = LocalTable()
    table.put("old", json.dumps([1, [3.0], [], 0, None, {"r1": ["serving", 1]}, {}]))
    [found] = heard(table, "mine").others(0.0).values()
    assert (found.at["r1"], found.sessions) == (("serving", 1), {})


def test_what_waits_for_a_tier_elsewhere_and_came_for_it_adds_up() -> None:
    table = LocalTable()
    one, mine, sums = Reports(table, "one"), Reports(table, "mine"), Elsewhere()
    for requests, waiting in ((5.0, 0), (8.0, 2)):
        one.say(report(3, tiers={"big": (requests, requests * 1000, waiting)}))
        mine.hear(0.0)
        sums.take(mine.others(0.0))
    assert sums.of_tier("big") == (3.0, 3000.0), "what came since it is heard"
    assert sums.of_tier("small") == (0.0, 0.0)
    assert sums.awaited == {"big": 2}
    one.leave()
    mine.hear(0.0)
    sums.take(mine.others(0.0))
    assert sums.awaited == {}
    assert sums.of_tier("big") == (3.0, 3000.0)


def test_one_that_says_nothing_new_is_gone_and_later_forgotten() -> None:
    table = LocalTable()
    one, other = Reports(table, "one"), Reports(table, "other")
    for at in (0.0, 3.0):
        one.say(report(3))
        other.hear(at)
    assert other.others(3.0 + LOST_AFTER_S)
    other.hear(4.0 + LOST_AFTER_S)
    assert other.others(4.0 + LOST_AFTER_S) == {}
    other.hear(100.0)
    assert "one" not in table.values
    one.say(report(4))
    other.hear(101.0)
    assert "one" in other.others(101.0)


def test_a_replica_is_left_when_nobody_works_there_or_might() -> None:
    table = LocalTable()
    one, mine = Reports(table, "one"), Reports(table, "mine")
    for at, left in (
        (("serving", 0), False),
        (("starting", 0), False),
        (("draining", 1), False),
        (("draining", 0), True),
        (("standby", 0), True),
        (None, True),
    ):
        one.say(report(1, at={} if at is None else {"r1": at}))
        mine.hear(0.0)
        assert mine.have_left("r1", 0.0) is left, at
    one.say(report(1, at={"r1": ("serving", 1)}))
    mine.hear(0.0)
    assert mine.have_left("r1", 100.0), "a proxy that is gone holds up nobody"


def test_what_is_no_report_is_passed_over() -> None:
    table = LocalTable()
    for number, text in enumerate(
        ["", "1", "[]", '{"a": 1}', json.dumps([1, ["x"], [], 0, None, {}]), "[1,[],[],0,0,7]"]
    ):
        table.put(str(number), text)
    assert heard(table, "mine").others(0.0) == {}


def test_growth_adds_up_and_proxies_come_and_go() -> None:
    elsewhere = Elsewhere()
    elsewhere.take({"a": report(100, (1, 1))})
    assert elsewhere.added_to(sample(10, (0, 0))).arrived == 10, "what came before it was heard is not news"
    elsewhere.take({"a": report(103, (2, 3)), "b": report(50)})
    elsewhere.take({"a": report(103, (2, 3)), "b": report(57)})
    whole = elsewhere.added_to(sample(10, (4, 4)))
    assert (whole.arrived, whole.prompt, whole.ttft) == (20, 200, (5, 6))
    elsewhere.take({})
    elsewhere.take({"b": report(1)})
    assert elsewhere.added_to(sample(10, (4, 4))).arrived == 20, "nothing is lost, and a fresh start is no growth"


def test_what_waits_and_runs_there_is_of_now() -> None:
    elsewhere = Elsewhere()
    elsewhere.take(
        {
            "a": report(1, waiting=2, wait_s=0.5, at={"r1": ("serving", 3), "r2": ("draining", 1)}),
            "b": report(1, waiting=1, wait_s=None, at={"r1": ("serving", 2)}),
        }
    )
    assert (elsewhere.waiting, elsewhere.wait_s, elsewhere.in_flight) == (3, 0.5, 6)
    elsewhere.take({})
    assert (elsewhere.waiting, elsewhere.wait_s, elsewhere.in_flight) == (0, None, 0)


def test_buckets_that_are_not_known_here_yet_are_left_out() -> None:
    elsewhere = Elsewhere()
    for arrived in (1, 5):
        elsewhere.take({"a": report(arrived, (arrived, 0))})
    assert elsewhere.added_to(sample(0)).ttft == ()
    assert elsewhere.added_to(sample(0, (7, 7))).ttft == (7, 7)
