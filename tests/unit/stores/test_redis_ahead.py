"""What is taken before it is asked for: when, how much, and that it all comes back."""

import pytest

from llmproxy.core.buckets import DAY_MS
from llmproxy.core.limits import Kind, Limit, Scope, Taken, Unit
from llmproxy.stores.memory import MemoryStore
from llmproxy.stores.redis_ahead import Ahead

T0 = 1_775_000_000_000
"""Some hours into a day."""


def bucket(size=1_000_000, key="t:a:tpm"):
    return Limit(key, Kind.BUCKET, Unit.TOKENS, Scope.TENANT, size, size)


def places(size=1000, key="t:a:now"):
    return Limit(key, Kind.LEASES, Unit.CONCURRENCY, Scope.TENANT, size)


def budget(size=10**9):
    return Limit("t:a:tokens-day", Kind.DAY, Unit.TOKENS, Scope.TENANT, size)


class Redis:
    """The memory store in Redis's place, and a clock. `busy` is somebody who asks often."""

    def __init__(self, proxies=1):
        self.store = MemoryStore()
        self.ahead = Ahead()
        self.now_ms = T0
        self.proxies = proxies
        self.asked = 0

    def take(self, limits, amounts, lease=""):
        taken = self.ahead.take(limits, amounts, lease, self.now_ms)
        if taken is None:
            self.asked += 1
            taken = self.store.take(limits, amounts, lease, self.now_ms)
            self.ahead.asked(limits, amounts, taken)
        return taken

    def give(self, limits, amounts, lease, taken):
        name = self.ahead.name_of(lease)
        rest, rest_amounts = self.ahead.give(limits, amounts, name, taken.at_ms, self.proxies)
        self.store.give(rest, rest_amounts, name, taken, self.now_ms)

    def tick(self):
        advances, gifts = self.ahead.tick(self.proxies, self.now_ms)
        for one in advances:
            taken = self.store.take(one.limits, one.amounts, one.lease, self.now_ms)
            assert self.ahead.answered(one, taken)
        self.said(gifts)
        self.now_ms += 20

    def said(self, gifts):
        for gift in gifts:
            self.store.give(gift.limits, gift.amounts, gift.lease, Taken(gift.taken_at_ms), self.now_ms)

    def busy(self, limits, amounts, rounds=4):
        for number in range(rounds):
            for each in range(10):
                lease = f"p.{number}.{each}"
                taken = self.take(limits, amounts, lease)
                assert taken.ok
                back = [-1 if limit.kind is Kind.LEASES else 0 for limit in limits]
                self.give(limits, back, lease, taken)
            self.tick()

    def left(self, limit):
        return self.store.take([limit], [0], "", self.now_ms).remaining[0]


def test_a_busy_tenant_is_not_asked_for_again():
    redis = Redis()
    limits = [bucket(), places(), budget()]
    redis.busy(limits, [100, 1, 100], rounds=2)
    asked = redis.asked
    redis.busy(limits, [100, 1, 100], rounds=50)
    assert redis.asked == asked


def test_who_asks_seldom_is_asked_for_each_time():
    redis = Redis()
    for _ in range(20):
        assert redis.take([bucket()], [1]).ok
        redis.tick()
    assert redis.asked == 20
    assert not redis.ahead.accounts


@pytest.mark.parametrize(("size", "used"), [(400, 0), (2_000, 1_200)])
def test_what_is_small_or_nearly_used_up_is_not_taken_ahead(size, used):
    redis = Redis()
    limit = bucket(size)
    redis.store.take([limit], [used], "", T0)
    redis.busy([limit], [1], rounds=3)
    assert redis.asked == 30


def test_no_more_is_held_than_a_small_part_by_all_together():
    redis = Redis(proxies=4)
    limit = bucket(64_000)
    redis.busy([limit], [60], rounds=2)
    assert 0 < redis.ahead.accounts[limit.key].held <= 250


def test_what_passes_was_granted_and_what_is_over_comes_back():
    redis = Redis()
    limits = [bucket(), places(), budget()]
    redis.busy(limits, [100, 1, 100], rounds=3)
    held = redis.ahead.accounts[limits[0].key].held
    assert held > 0
    assert redis.left(limits[2]) + held == 10**9 - 3000
    for _ in range(10):
        redis.tick()
    assert not redis.ahead.accounts
    assert not redis.ahead.busy
    assert redis.left(limits[1]) == 1000
    assert redis.left(limits[2]) == 10**9 - 3000


def test_what_was_not_used_is_there_for_the_next_and_a_debt_is_told():
    redis = Redis()
    limit = budget()
    redis.busy([limit], [100], rounds=2)
    account = redis.ahead.accounts[limit.key]
    held = account.held
    taken = redis.take([limit], [100])
    redis.give([limit], [-70], "", taken)
    assert account.held == held - 30
    redis.give([limit], [50_000], "", taken)
    assert account.held < 0
    assert redis.ahead.take([limit], [1], "", redis.now_ms) is None
    redis.said(redis.ahead.close())
    assert redis.left(limit) == 10**9 - 2000 - 30 - 50_000


def test_a_place_keeps_the_name_under_which_redis_knows_it():
    redis = Redis()
    limits = [bucket(), places()]
    redis.busy(limits, [1, 1], rounds=2)
    taken = redis.take(limits, [1, 1], "p.new")
    [(limit, name)] = redis.ahead.names.values()
    assert limit is limits[1]
    assert name != "p.new"
    assert name in [gift.lease for gift in redis.ahead.renewals()]
    redis.give([limits[1]], [-1], "p.new", taken)
    assert not redis.ahead.names
    redis.said(redis.ahead.close())
    assert redis.left(limits[1]) == 1000


def test_places_in_two_limits_at_once_are_asked_for():
    redis = Redis()
    redis.busy([places(key="t:a:now"), places(key="k:a:now")], [1, 1], rounds=3)
    assert redis.asked == 30


def test_places_not_needed_for_a_while_are_released():
    redis = Redis()
    limits = [bucket(), places()]
    leases = [f"p.{number}" for number in range(40)]
    granted = [redis.take(limits, [1, 1], lease) for lease in leases]
    for lease, taken in zip(leases, granted, strict=True):
        redis.give([limits[1]], [-1], lease, taken)
    assert len(redis.ahead.accounts[limits[1].key].spares) == 40
    redis.busy(limits, [1, 1], rounds=60)
    assert len(redis.ahead.accounts[limits[1].key].spares) == 1


def test_another_quota_is_asked_for():
    redis = Redis()
    redis.busy([bucket()], [1], rounds=2)
    asked = redis.asked
    redis.take([bucket(2_000_000)], [1])
    assert redis.asked == asked + 1


def test_what_is_held_of_a_day_is_void_on_the_next():
    redis = Redis()
    limit = budget()
    redis.busy([limit], [100], rounds=2)
    taken = redis.take([limit], [100])
    redis.now_ms += DAY_MS
    asked = redis.asked
    redis.take([limit], [100])
    assert redis.asked == asked + 1
    redis.give([limit], [-100], "", taken)
    redis.tick()
    assert redis.left(limit) == 10**9 - 100


def test_who_only_looks_is_told_by_redis():
    redis = Redis()
    redis.busy([bucket()], [1], rounds=2)
    asked = redis.asked
    redis.take([bucket()], [0])
    assert redis.asked == asked + 1


def test_an_advance_that_comes_after_its_account_was_closed_is_to_go_back():
    redis = Redis()
    redis.busy([bucket()], [1], rounds=2)
    redis.take([bucket()], [1])
    [advance], _ = redis.ahead.tick(1, redis.now_ms)
    redis.ahead.close()
    taken = redis.store.take(advance.limits, advance.amounts, "", redis.now_ms)
    assert not redis.ahead.answered(advance, taken)
    assert redis.ahead.answered(advance, None)


def test_the_headers_tell_of_what_is_left_altogether():
    redis = Redis()
    limit = Limit("t:a:rpm", Kind.BUCKET, Unit.REQUESTS, Scope.TENANT, 1, 1_000_000)
    redis.busy([limit], [1], rounds=2)
    before = redis.take([limit], [1])
    after = redis.take([limit], [1])
    assert before.remaining[0] - after.remaining[0] == 1
    assert after.reset_ms[0] >= before.reset_ms[0] > 0
