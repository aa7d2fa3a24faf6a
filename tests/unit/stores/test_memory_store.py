"""What the oracle (tests/property/test_limits_script_property.py) does not see: edges, bounds and parts."""

import pytest

from llmproxy.core.buckets import MINUTE_MS, month_of, month_start_ms, period_end_ms, refill, wait_ms
from llmproxy.core.limits import Kind, Limit, Scope, Taken, Unit
from llmproxy.stores.memory import MemoryStore

T0 = 1_775_000_000_000


def bucket(key="b", rate=60, burst=None):
    return Limit(key, Kind.BUCKET, Unit.REQUESTS, Scope.TENANT, rate, burst or rate)


def test_looking_often_loses_no_fraction():
    level, rest, at = 0, 0, 0
    for now in range(1, MINUTE_MS + 1):
        level, rest, at = refill(level, rest, at, 7, 100, now)
    assert (level, rest) == (7, 0)


def test_waiting_as_long_as_told_is_enough_and_less_is_not():
    for rate in (1, 7, 60, 999, 10**9):
        wait = wait_ms(-3, 11, rate, 5)
        assert refill(-3, 11, 0, rate, 100, wait)[0] >= 5
        assert refill(-3, 11, 0, rate, 100, wait - 1)[0] < 5


def test_a_clock_that_goes_back_invents_nothing():
    level, rest, at = refill(0, 0, 50_000, 60, 100, 40_000)
    assert (level, at) == (0, 50_000)
    assert refill(level, rest, at, 60, 100, 50_000)[0] == 0
    # Far back it was set anew, and time goes on from there.
    assert refill(0, 0, 500_000, 60, 100, 1_000) == (0, 0, 1_000)


def test_months():
    december = month_of(1_767_139_200_000)  # 2025-12-31
    assert period_end_ms(True, december) == 1_767_225_600_000
    assert month_of(month_start_ms(december)) == december
    assert month_start_ms(0) == 0


def test_what_is_as_new_is_forgotten():
    store = MemoryStore()
    for number in range(5000):
        store.take([bucket(f"b{number}")], [1], "", T0 + number * 1000)
    assert len(store) < 2500
    # Nobody who is still short was let go.
    store.take([bucket("short")], [60], "", T0 + 5_000_000)
    for number in range(3000):
        store.take([bucket(f"c{number}")], [1], "", T0 + 5_000_000 + number)
    assert not store.take([bucket("short")], [60], "", T0 + 5_003_000).ok


def test_even_what_is_not_is_bounded():
    store = MemoryStore(keys_max=3000)
    for number in range(10_000):
        store.take([bucket(f"b{number}")], [60], "", T0)
    assert len(store) <= 3000
    assert not store.take([bucket("b9999")], [1], "", T0).ok


def test_refusals_are_not_kept():
    store = MemoryStore()
    full = Limit("full", Kind.DAY, Unit.TOKENS, Scope.TENANT, 1)
    for number in range(100):
        assert not store.take([bucket(f"b{number}"), full], [1, 2], "", T0).ok
    assert len(store) == 0


@pytest.mark.parametrize(("rate", "share", "each"), [(10, 4, 2), (10, 1, 10), (1, 4, 1), (40, 4, 10)])
def test_a_part_of_a_bucket(rate, share, each):
    store = MemoryStore(share=share)
    passed = 0
    while store.take([bucket(rate=rate)], [1], "", T0).ok:
        passed += 1
    assert passed == each
    refused = store.take([bucket(rate=rate)], [1], "", T0)
    assert refused.wait_ms == -(-MINUTE_MS * share // rate)
    assert store.take([bucket(rate=rate)], [1], "", T0 + refused.wait_ms).ok


def test_parts_of_budgets_and_places():
    store = MemoryStore(share=4)
    budget = Limit("d", Kind.DAY, Unit.TOKENS, Scope.TENANT, 100)
    places = Limit("p", Kind.LEASES, Unit.CONCURRENCY, Scope.TENANT, 8)
    assert store.take([budget, places], [25, 1], "one", T0).ok
    assert store.take([budget], [1], "", T0).denied == 0
    assert store.take([places], [1], "two", T0).ok
    assert not store.take([places], [1], "three", T0).ok
    store.give([places], [-1], "one", Taken(T0), T0)
    assert store.take([places], [1], "three", T0).ok


def test_begun_from_what_was_left():
    store = MemoryStore(share=2)
    limit = bucket(rate=60)
    store.seed(limit, 20, T0)
    store.seed(limit, 60, T0)
    assert store.take([limit], [0], "", T0).remaining == [10]
    assert store.take([limit], [0], "", T0 + 10_000).remaining == [15]
    budget = Limit("d", Kind.DAY, Unit.TOKENS, Scope.TENANT, 100)
    store.seed(budget, 10, T0)
    assert store.take([budget], [0], "", T0).remaining == [5]
