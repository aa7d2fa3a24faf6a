"""The limiter over the memory store: what passes, what is charged, what is told, what comes back."""

import asyncio
from datetime import UTC, datetime

import pytest

from llmproxy.core.clock import ManualClock
from llmproxy.core.errors import RateLimited, Unavailable
from llmproxy.core.identity import Identity, anonymous
from llmproxy.core.limits import MICRO, Pending, Quota, Taken, Tier
from llmproxy.core.step import Steps
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.stores.memory import MemoryStore

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp()
FREE = Identity("acme", "free", "key-1")


def now_of(coroutine):
    """Its result: with the memory store nothing is ever waited for."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
def make(clock):
    def make(*tiers, prices=None, store=None):
        return Limiter(
            MemoryStore() if store is None else store,
            {tier.name: tier for tier in tiers},
            name="p",
            unix_offset_s=NOON - 1000.0,
            prices=prices,
        )

    return make


def headers_of(verdict, reservation=None):
    return dict(line.split(": ") for line in verdict.headers(reservation).decode().split("\r\n") if line)


def test_the_eleventh_of_eleven_is_refused(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=10)))
    verdicts = [now_of(limiter.check_request(FREE, "m", clock())) for _ in range(11)]
    assert [verdict.ok for verdict in verdicts] == [True] * 10 + [False]
    assert headers_of(verdicts[3]) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "6",
        "x-ratelimit-reset-requests": "24s",
    }
    error = verdicts[10].error()
    assert isinstance(error, RateLimited)
    assert (error.status, error.code, error.type, error.retry_after_s) == (429, "rate_limit_exceeded", "requests", 6)
    assert "10 requests a minute for this tenant; try again in 6s" in error.message
    assert dict(error.headers)[b"x-ratelimit-remaining-requests"] == b"0"
    clock.advance(5.999)
    assert not now_of(limiter.check_request(FREE, "m", clock())).ok
    clock.advance(0.001)
    assert now_of(limiter.check_request(FREE, "m", clock())).ok


def test_a_tier_without_limits_and_one_nobody_knows_let_everything_pass(make, clock):
    limiter = make(Tier("enterprise"))
    for tier in ("enterprise", "unheard-of", ""):
        identity = Identity("big", tier)
        verdict = now_of(limiter.check_request(identity, "m", clock()))
        reservation = now_of(limiter.reserve_tokens(verdict, clock(), prompt_bytes=400, max_tokens=10))
        assert verdict.ok
        assert reservation.ok
        assert verdict.headers(reservation) == b""
        reservation.settle(90, 10, limiter.unix_ms(clock()))
        verdict.release(limiter.unix_ms(clock()))


def test_tenants_are_counted_apart_and_keys_of_one_together(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=2)))
    for tenant, key in (("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")):
        assert now_of(limiter.check_request(Identity(tenant, "free", key), None, clock())).ok
    for tenant in ("a", "b"):
        assert not now_of(limiter.check_request(Identity(tenant, "free", "9"), None, clock())).ok


def test_without_a_key_each_address_is_counted(make, clock):
    limiter = make(Tier("guests", Quota(requests_per_minute=1)))
    assert now_of(limiter.check_request(anonymous("10.0.0.1", "guests"), None, clock())).ok
    assert now_of(limiter.check_request(anonymous("10.0.0.2", "guests"), None, clock())).ok
    refused = now_of(limiter.check_request(anonymous("10.0.0.1", "guests"), None, clock()))
    assert "for this ip" in refused.error().message


def test_a_key_and_a_model_have_limits_within_the_tenants(make, clock):
    tier = Tier("paid", Quota(requests_per_minute=100), {"large": Quota(requests_per_minute=2)})
    limiter = make(tier)
    key = Identity("acme", "paid", "k", limits=Quota(requests_per_minute=3))
    assert [now_of(limiter.check_request(key, "large", clock())).ok for _ in range(3)] == [True, True, False]
    assert now_of(limiter.check_request(key, "small", clock())).ok
    refused = now_of(limiter.check_request(key, "small", clock()))
    assert "3 requests a minute for this key" in refused.error().message
    # What was refused took nothing from anybody else.
    other = now_of(limiter.check_request(Identity("acme", "paid", "other"), "small", clock()))
    assert headers_of(other)["x-ratelimit-remaining-requests"] == "96"


def test_names_that_look_like_keys_are_kept_apart(make, clock):
    tier = Tier("t", Quota(requests_per_minute=1), {"b:c": Quota(requests_per_minute=1)})
    limiter = make(tier)
    for tenant in ("a", "a:b", "a%3Ab", "a:b:c"):
        assert now_of(limiter.check_request(Identity(tenant, "t"), "b:c", clock())).ok


def test_a_key_whose_limits_change_meets_the_new_ones(make, clock):
    limiter = make(Tier("paid"))
    old = Identity("acme", "paid", "k", limits=Quota(requests_per_minute=1))
    new = Identity("acme", "paid", "k", limits=Quota(requests_per_minute=50))
    assert now_of(limiter.check_request(old, None, clock())).ok
    assert not now_of(limiter.check_request(old, None, clock())).ok
    clock.advance(6)
    assert now_of(limiter.check_request(new, None, clock())).ok


# -- concurrency -------------------------------------------------------------------------------------------------------


def test_places_come_back_once(make, clock):
    limiter = make(Tier("free", Quota(concurrency=2)))
    first, second, third = (now_of(limiter.check_request(FREE, None, clock())) for _ in range(3))
    assert (first.ok, second.ok, third.ok) == (True, True, False)
    error = third.error()
    assert (error.type, error.retry_after_s) == ("requests", 1)
    for _ in range(3):
        third.release(limiter.unix_ms(clock()))
        first.release(limiter.unix_ms(clock()))
    again = [now_of(limiter.check_request(FREE, None, clock())).ok for _ in range(2)]
    assert again == [True, False]
    assert limiter.usage.get("acme").in_flight == 2


# -- tokens ------------------------------------------------------------------------------------------------------------


def limited(make, clock, quota, **options):
    limiter = make(Tier("free", quota), **options)

    def reserve(**request):
        verdict = now_of(limiter.check_request(FREE, "m", clock()))
        return verdict, now_of(limiter.reserve_tokens(verdict, clock(), **request))

    return limiter, reserve


def left(limiter, clock, unit="tokens"):
    standing = now_of(limiter.standing(FREE, "m", clock()))
    return [limit["remaining"] for limit in standing["limits"] if limit["unit"] == unit]


def test_reserved_before_settled_after(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=1000))
    verdict, reservation = reserve(prompt_tokens=300, max_tokens=100)
    assert headers_of(verdict)["x-ratelimit-remaining-tokens"] == "1000"
    assert headers_of(verdict, reservation)["x-ratelimit-remaining-tokens"] == "600"
    reservation.settle(310, 40, limiter.unix_ms(clock()))
    assert left(limiter, clock) == [650]
    for _ in range(2):
        reservation.settle(310, 400, limiter.unix_ms(clock()))
        reservation.refund(limiter.unix_ms(clock()))
    assert left(limiter, clock) == [650]


def test_refunded_whole(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=1000, tokens_per_day=5000))
    _, reservation = reserve(prompt_tokens=300, max_tokens=100)
    assert left(limiter, clock) == [600, 4600]
    reservation.refund(limiter.unix_ms(clock()))
    assert left(limiter, clock) == [1000, 5000]


def test_what_was_used_beyond_is_a_debt(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=600))
    reserve(prompt_tokens=100, max_tokens=100)[1].settle(100, 1100, limiter.unix_ms(clock()))
    refused = reserve(prompt_tokens=10, max_tokens=10)[1]
    assert not refused.ok
    assert refused.error().type == "tokens"
    # 600 tokens are owed, and 20 wanted.
    assert refused.error().retry_after_s == 62
    clock.advance(62)
    assert reserve(prompt_tokens=10, max_tokens=10)[1].ok


def test_an_unknown_usage_is_never_nothing(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=1000))
    reserve(prompt_bytes=400, max_tokens=50)[1].settle(None, 7, limiter.unix_ms(clock()))
    assert left(limiter, clock) == [1000 - 100 - 7]
    reserve(prompt_bytes=400, max_tokens=50)[1].settle(None, None, limiter.unix_ms(clock()))
    assert left(limiter, clock) == [1000 - 100 - 7 - 100 - 50]


def test_larger_than_the_bucket_waits_for_a_full_one(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=1000))
    _, first = reserve(prompt_tokens=5000, max_tokens=10)
    assert first.ok
    first.settle(5000, 10, limiter.unix_ms(clock()))
    refused = reserve(prompt_tokens=5000, max_tokens=10)[1]
    assert not refused.ok
    clock.advance(refused.error().retry_after_s)
    assert reserve(prompt_tokens=5000, max_tokens=10)[1].ok


def test_the_answer_is_estimated_from_those_before(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=10**6))
    for length in [20] * 90 + [2000] * 10:
        reserve(prompt_bytes=1000)[1].settle(250, length, limiter.unix_ms(clock()))
    _, learned = reserve(prompt_bytes=1000)
    assert 20 <= learned.completion <= 32
    assert reserve(prompt_bytes=1000, max_tokens=5)[1].completion == 5


def test_budgets_last_until_midnight_and_the_end_of_the_month(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_day=1000, tokens_per_month=1500))
    reserve(prompt_tokens=900, max_tokens=100)[1].settle(900, 100, limiter.unix_ms(clock()))
    error = reserve(prompt_tokens=1, max_tokens=1)[1].error()
    assert error.retry_after_s == 12 * 3600
    assert "1000 tokens a day for this tenant; try again in 12h0m0s" in error.message
    # The 31st of March: the month is over as well.
    clock.advance(12 * 3600)
    assert left(limiter, clock) == [1000, 1500]


def test_budgets_of_money(make, clock):
    prices = {"m": (0.5, 1.5), "*": (100.0, 100.0)}
    quota = Quota(cost_per_day=1 * MICRO)
    limiter, reserve = limited(make, clock, quota, prices=prices)
    reserve(prompt_tokens=1000, max_tokens=1000)[1].settle(1000, 101, limiter.unix_ms(clock()))
    # 1000 * 0.5 + 101 * 1.5 millionths, rounded up.
    assert left(limiter, clock, "money") == [MICRO - 652]
    assert limiter.usage.view()["acme"]["cost"] == pytest.approx(0.000652)
    error = reserve(prompt_tokens=2 * MICRO, max_tokens=1)[1].error()
    assert (error.type, error.code) == ("money", "rate_limit_exceeded")
    assert "the budget of 1 a day for this tenant is used up; try again in 12h0m0s" in error.message


def test_both_in_one_question(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=10, tokens_per_minute=1000, concurrency=5)))
    verdict, reservation = now_of(limiter.admit(FREE, "m", clock(), prompt_tokens=500, max_tokens=200))
    assert verdict.ok
    assert reservation.ok
    assert headers_of(verdict, reservation)["x-ratelimit-remaining-tokens"] == "300"
    refused, holds_nothing = now_of(limiter.admit(FREE, "m", clock(), prompt_tokens=500, max_tokens=200))
    assert not refused.ok
    assert not holds_nothing.ok
    assert refused.error().type == "tokens"
    # Nothing was taken, no request either.
    assert left(limiter, clock, "requests") == [9]
    assert left(limiter, clock, "concurrency") == [4]
    holds_nothing.refund(limiter.unix_ms(clock()))
    refused.release(limiter.unix_ms(clock()))
    reservation.settle(500, 0, limiter.unix_ms(clock()))
    verdict.release(limiter.unix_ms(clock()))
    assert left(limiter, clock) == [500]
    assert left(limiter, clock, "concurrency") == [5]
    assert limiter.verdicts == {("free", "passed"): 1, ("free", "tokens"): 1}


# -- the store and the admin -------------------------------------------------------------------------------------------


def test_overrides_take_the_place_of_the_tiers_numbers(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=1, tokens_per_minute=100)))
    assert now_of(limiter.check_request(FREE, None, clock())).ok
    assert not now_of(limiter.check_request(FREE, None, clock())).ok
    asyncio.run(limiter.override("acme", {"requests_per_minute": 60, "tokens_per_minute": None}))
    clock.advance(1)
    verdict = now_of(limiter.check_request(FREE, None, clock()))
    assert verdict.ok
    assert headers_of(verdict)["x-ratelimit-limit-requests"] == "60"
    assert "x-ratelimit-limit-tokens" not in headers_of(verdict)
    asyncio.run(limiter.override("acme", None))
    assert headers_of(now_of(limiter.check_request(FREE, None, clock())))["x-ratelimit-limit-requests"] == "1"


@pytest.mark.parametrize(
    "values",
    [
        {"rpm": 1},
        {"requests_per_minute": 0},
        {"requests_per_minute": 1.5},
        {"requests_per_minute": True},
        {"tokens_per_day": 10**16},
        {"tokens_per_minute": 10**12},
        {"cost_per_day": 0},
        {"cost_per_day": "1"},
        {"concurrency": -1},
    ],
)
def test_overrides_that_are_none_are_refused(make, values):
    with pytest.raises(ValueError, match=next(iter(values))):
        asyncio.run(make().override("acme", values))


def test_an_override_nobody_understands_changes_nothing(make, clock):
    store = MemoryStore()
    limiter = make(Tier("free", Quota(requests_per_minute=7)), store=store)
    for text in ("{", "[]", "1", '{"of_a_later_version": 1}'):
        asyncio.run(store.set_override("acme", text))
        assert headers_of(now_of(limiter.check_request(FREE, None, clock())))["x-ratelimit-limit-requests"] == "7"


class SlowStore:
    """Answers when told to."""

    overrides_version = 0

    def overrides(self):
        return {}

    def take(self, limits, amounts, lease, now_ms):
        self.pending = Pending(limits, amounts, lease, now_ms)
        return self.pending


def test_a_client_that_leaves_while_the_store_thinks(make, clock):
    store = SlowStore()
    limiter = make(Tier("free", Quota(requests_per_minute=10)), store=store)
    ended = []
    steps = Steps(limiter.check_request(FREE, None, clock()), ended.append)
    steps.resume()
    assert not steps.ended
    steps.cancel()
    assert store.pending.abandoned
    assert ended == [None]


def test_a_store_that_answers_later(make, clock):
    store = SlowStore()
    limiter = make(Tier("free", Quota(requests_per_minute=10)), store=store)
    got = []

    async def story():
        got.append(await limiter.check_request(FREE, None, clock()))

    Steps(story(), lambda error: None).resume()
    assert got == []
    store.pending.set(Taken(0, [0], [60_000], denied=0, wait_ms=4200))
    assert got[0].error().retry_after_s == 5


def test_a_store_that_is_out_of_reach_and_denies(make, clock):
    store = SlowStore()
    limiter = make(Tier("free", Quota(requests_per_minute=10)), store=store)
    got = []

    async def story():
        got.append(await limiter.check_request(FREE, None, clock()))

    Steps(story(), lambda error: None).resume()
    store.pending.set(Taken(0, failed=True, uncounted=True, wait_ms=1000))
    error = got[0].error()
    assert isinstance(error, Unavailable)
    assert (error.status, error.code, error.retry_after_s) == (503, "limits_unavailable", 1)
    assert limiter.verdicts == {("free", "store"): 1}


def test_memory_is_bounded(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=10, tokens_per_minute=1000, concurrency=2)))
    for number in range(12_000):
        identity = anonymous(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "free")
        verdict = now_of(limiter.check_request(identity, f"m{number}", clock()))
        reservation = now_of(limiter.reserve_tokens(verdict, clock(), prompt_tokens=10, max_tokens=10))
        reservation.settle(10, 10, limiter.unix_ms(clock()))
        verdict.release(limiter.unix_ms(clock()))
        clock.advance(0.1)
    assert len(limiter.store) < 3000
    assert len(limiter.estimator) <= 2000
    assert len(limiter.usage.view()) <= 1000
    assert len(limiter._plans) <= 5000


def test_every_gauge_is_back_where_it_was(make, clock):
    """Requests that end in any way, mixed: no place, no token and no count is left over."""
    limiter, reserve = limited(make, clock, Quota(requests_per_minute=10**6, tokens_per_minute=10**6, concurrency=50))
    for number in range(2000):
        verdict, reservation = reserve(prompt_tokens=7, max_tokens=100)
        if number % 3 == 0:
            reservation.settle(7, 0, limiter.unix_ms(clock()))
        elif number % 3 == 1:
            reservation.refund(limiter.unix_ms(clock()))
        else:
            reservation.settle(0, 0, limiter.unix_ms(clock()))
        verdict.release(limiter.unix_ms(clock()))
    assert limiter.usage.get("acme").in_flight == 0
    clock.advance(60)
    assert left(limiter, clock) == [10**6]
    assert left(limiter, clock, "concurrency") == [50]
