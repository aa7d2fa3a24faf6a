"""The sweep: late by up to its interval, never early, and fair to all when one ends another."""

import asyncio

import pytest

from llmproxy.core.clock import ManualClock
from llmproxy.wire.deadlines import NEVER, Deadlines
from tests.harness.waiting import until


class Item:
    def __init__(self, deadline, on_expired=lambda item: None):
        self.deadline = deadline
        self.told = []
        self.on_expired = on_expired

    def expired(self, now):
        self.told.append(now)
        self.deadline = NEVER
        self.on_expired(self)


async def make(*items):
    deadlines = Deadlines(asyncio.get_running_loop(), ManualClock(), interval_s=0.001)
    for item in items:
        deadlines.add(item)
    return deadlines


async def test_only_those_that_are_late():
    early, due, late, never = Item(10.1), Item(10.0), Item(3.0), Item(NEVER)
    deadlines = await make(early, due, late, never)
    deadlines.sweep(10.0)
    assert [item.told for item in (early, due, late, never)] == [[], [10.0], [10.0], []]
    deadlines.sweep(11.0)
    assert [item.told for item in (early, due, late, never)] == [[11.0], [10.0], [10.0], []]


@pytest.mark.parametrize("ending", ["left", "armed"])
async def test_one_ends_the_other(ending):
    """Whoever comes first: the other one has left, or has been armed anew, and is not told."""
    items = []
    deadlines = await make()

    def end_the_others(item):
        for other in items:
            if other is not item and ending == "left":
                deadlines.discard(other)
            elif other is not item:
                other.deadline = 100.0

    for _ in range(5):
        items.append(Item(1.0, end_the_others))
        deadlines.add(items[-1])
    deadlines.sweep(2.0)
    assert sum(len(item.told) for item in items) == 1


async def test_it_sweeps_until_stopped():
    clock = ManualClock()
    deadlines = Deadlines(asyncio.get_running_loop(), clock, interval_s=0.001)
    item = Item(5.0)
    deadlines.add(item)
    deadlines.start()
    clock.advance(6.0)
    await until(lambda: item.told == [6.0], "swept")
    item.deadline = 7.0
    clock.advance(6.0)
    await until(lambda: item.told == [6.0, 12.0], "swept again")
    deadlines.stop()
    deadlines.stop()


async def test_a_failure_costs_only_the_one_that_fails():
    heard = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: heard.append(context["exception"]))

    def fail(item):
        item.deadline = 0.0
        raise ValueError("oops")

    items = [Item(0.5, fail), *(Item(0.5) for _ in range(9)), Item(0.5, fail)]
    deadlines = await make(*items)
    deadlines.sweep(1.0)
    assert all(item.told == [1.0] for item in items)
    assert [type(error) for error in heard] == [ValueError, ValueError]
    assert len(deadlines) == 9


async def test_it_tells_how_late_each_sweep_comes():
    clock, lags = ManualClock(5.0), []
    deadlines = Deadlines(asyncio.get_running_loop(), clock, interval_s=0.001, on_tick_lag=lags.append)
    deadlines.start()
    # The clock stands still, which for a timer is early.
    await until(lambda: len(lags) >= 2, "two sweeps")
    assert set(lags) == {0.0}
    # A quarter of a second went by while the timer was due in a thousandth.
    seen = len(lags)
    clock.advance(0.251)
    await until(lambda: len(lags) >= seen + 2, "two more")
    assert lags[seen:][:2] == [pytest.approx(0.25), 0.0]
    deadlines.stop()
