"""The limiter over the memory store: what passes, what is charged, what is told, what comes back."""

import asyncio
from datetime import UTC, datetime

import pytest

from llmproxy.core.clock import ManualClock
from llmproxy.core.errors import RateLimited, Unavailable
from llmproxy.core.identity import Identity, anonymous
from llmproxy.core.limits import MICRO, Pending, Quota, Taken, Tier, Unit
from llmproxy.core.step import Steps
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.policy.limits.usage import UsageTable
from llmproxy.stores.memory import MemoryStore

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp()
FREE = Identity("acme", "free", "key-1")


def now_of(coroutine):
    """Its result: with the memory store nothing is ever waited for."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def close(limiter, charge, clock):
    charge.close(limiter.unix_ms(clock()))


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


def headers_of(charge):
    return dict(line.split(": ") for line in charge.headers().decode().split("\r\n") if line)


def test_the_eleventh_of_eleven_is_refused(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=10)))
    charges = [limiter.check_request(FREE, "m", clock()) for _ in range(11)]
    assert [charge.ok for charge in charges] == [True] * 10 + [False]
    assert headers_of(charges[3]) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "6",
        "x-ratelimit-reset-requests": "24s",
    }
    error = charges[10].error()
    assert isinstance(error, RateLimited)
    assert (error.status, error.code, error.type, error.retry_after_s) == (429, "rate_limit_exceeded", "requests", 6)
    assert "10 requests a minute for this tenant; try again in 6s" in error.message
    assert dict(error.headers)[b"x-ratelimit-remaining-requests"] == b"0"
    clock.advance(5.999)
    assert not limiter.check_request(FREE, "m", clock()).ok
    clock.advance(0.001)
    assert limiter.check_request(FREE, "m", clock()).ok


def test_a_tier_without_limits_and_one_nobody_knows_let_everything_pass(make, clock):
    limiter = make(Tier("enterprise"))
    for tier in ("enterprise", "unheard-of", ""):
        identity = Identity("big", tier)
        charge = limiter.check_request(identity, "m", clock())
        assert charge.ok
        limiter.reserve_tokens(charge, "m", clock(), prompt_bytes=400, max_tokens=10)
        assert charge.ok
        assert charge.headers() == b""
        charge.settle(90, 10)
        close(limiter, charge, clock)


def test_tenants_are_counted_apart_and_keys_of_one_together(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=2)))
    for tenant, key in (("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")):
        assert limiter.check_request(Identity(tenant, "free", key), None, clock()).ok
    for tenant in ("a", "b"):
        assert not limiter.check_request(Identity(tenant, "free", "9"), None, clock()).ok


def test_without_a_key_each_address_is_counted(make, clock):
    limiter = make(Tier("guests", Quota(requests_per_minute=1)))
    assert limiter.check_request(anonymous("10.0.0.1", "guests"), None, clock()).ok
    assert limiter.check_request(anonymous("10.0.0.2", "guests"), None, clock()).ok
    refused = limiter.check_request(anonymous("10.0.0.1", "guests"), None, clock())
    assert "for this ip" in refused.error().message


def test_a_key_and_a_model_have_limits_within_the_tenants(make, clock):
    tier = Tier("paid", Quota(requests_per_minute=100), {"large": Quota(requests_per_minute=2)})
    limiter = make(tier)
    key = Identity("acme", "paid", "k", limits=Quota(requests_per_minute=3))
    assert [limiter.check_request(key, "large", clock()).ok for _ in range(3)] == [True, True, False]
    assert limiter.check_request(key, "small", clock()).ok
    refused = limiter.check_request(key, "small", clock())
    assert "3 requests a minute for this key" in refused.error().message
    # What was refused took nothing from anybody else.
    other = limiter.check_request(Identity("acme", "paid", "other"), "small", clock())
    assert headers_of(other)["x-ratelimit-remaining-requests"] == "96"


def test_names_that_look_like_keys_are_kept_apart(make, clock):
    tier = Tier("t", Quota(requests_per_minute=1), {"b:c": Quota(requests_per_minute=1)})
    limiter = make(tier)
    for tenant in ("a", "a:b", "a%3Ab", "a:b:c"):
        assert limiter.check_request(Identity(tenant, "t"), "b:c", clock()).ok


def test_a_key_whose_limits_change_meets_the_new_ones(make, clock):
    limiter = make(Tier("paid"))
    old = Identity("acme", "paid", "k", limits=Quota(requests_per_minute=1))
    new = Identity("acme", "paid", "k", limits=Quota(requests_per_minute=50))
    assert limiter.check_request(old, None, clock()).ok
    assert not limiter.check_request(old, None, clock()).ok
    clock.advance(6)
    assert limiter.check_request(new, None, clock()).ok


# -- concurrency -------------------------------------------------------------------------------------------------------


def test_places_come_back_once(make, clock):
    limiter = make(Tier("free", Quota(concurrency=2)))
    first, second, third = (limiter.check_request(FREE, None, clock()) for _ in range(3))
    assert (first.ok, second.ok, third.ok) == (True, True, False)
    error = third.error()
    assert (error.type, error.retry_after_s) == ("requests", 1)
    for _ in range(3):
        close(limiter, third, clock)
        close(limiter, first, clock)
    again = [limiter.check_request(FREE, None, clock()).ok for _ in range(2)]
    assert again == [True, False]
    assert limiter.usage.get("acme").in_flight == 2


# -- tokens ------------------------------------------------------------------------------------------------------------


def limited(make, clock, quota, **options):
    limiter = make(Tier("free", quota), **options)

    def reserve(**request):
        charge = limiter.check_request(FREE, "m", clock())
        limiter.reserve_tokens(charge, "m", clock(), **request)
        return charge

    return limiter, reserve


def use(limiter, clock, charge, prompt, completion):
    charge.settle(prompt, completion)
    close(limiter, charge, clock)


def left(limiter, clock, unit="tokens"):
    standing = now_of(limiter.standing(FREE, "m", clock()))
    return [limit["remaining"] for limit in standing["limits"] if limit["unit"] == unit]


def test_reserved_before_settled_after(make, clock):
    limiter = make(Tier("free", Quota(tokens_per_minute=1000)))
    charge = limiter.check_request(FREE, "m", clock())
    assert headers_of(charge)["x-ratelimit-remaining-tokens"] == "1000"
    limiter.reserve_tokens(charge, "m", clock(), prompt_tokens=300, max_tokens=100)
    assert headers_of(charge)["x-ratelimit-remaining-tokens"] == "600"
    for completion in (40, 400):
        charge.settle(310, completion)
    for _ in range(2):
        close(limiter, charge, clock)
        charge.settle(310, 400)
    assert left(limiter, clock) == [650]
    assert limiter.usage.get("acme").completion_tokens == 40


def test_refunded_whole(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=1000, tokens_per_day=5000))
    charge = reserve(prompt_tokens=300, max_tokens=100)
    assert left(limiter, clock) == [600, 4600]
    close(limiter, charge, clock)
    assert left(limiter, clock) == [1000, 5000]


def test_what_was_used_beyond_is_a_debt(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=600))
    use(limiter, clock, reserve(prompt_tokens=100, max_tokens=100), 100, 1100)
    refused = reserve(prompt_tokens=10, max_tokens=10)
    assert not refused.ok
    assert refused.error().type == "tokens"
    # 600 tokens are owed, and 20 wanted.
    assert refused.error().retry_after_s == 62
    clock.advance(62)
    assert reserve(prompt_tokens=10, max_tokens=10).ok


def test_an_unknown_usage_is_never_nothing(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=1000))
    use(limiter, clock, reserve(prompt_bytes=400, max_tokens=50), None, 7)
    assert left(limiter, clock) == [1000 - 100 - 7]
    use(limiter, clock, reserve(prompt_bytes=400, max_tokens=50), None, None)
    assert left(limiter, clock) == [1000 - 100 - 7 - 100 - 50]


def test_larger_than_the_bucket_waits_for_a_full_one(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=1000))
    first = reserve(prompt_tokens=5000, max_tokens=10)
    assert first.ok
    use(limiter, clock, first, 5000, 10)
    refused = reserve(prompt_tokens=5000, max_tokens=10)
    assert not refused.ok
    clock.advance(refused.error().retry_after_s)
    assert reserve(prompt_tokens=5000, max_tokens=10).ok


def test_the_answer_is_estimated_from_those_before(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_minute=10**6))
    for length in [20] * 90 + [2000] * 10:
        use(limiter, clock, reserve(prompt_bytes=1000), 250, length)
    learned = reserve(prompt_bytes=1000)
    assert 20 <= learned.completion <= 32
    assert reserve(prompt_bytes=1000, max_tokens=5).completion == 5


def test_budgets_last_until_midnight_and_the_end_of_the_month(make, clock):
    limiter, reserve = limited(make, clock, Quota(tokens_per_day=1000, tokens_per_month=1500))
    use(limiter, clock, reserve(prompt_tokens=900, max_tokens=100), 900, 100)
    error = reserve(prompt_tokens=1, max_tokens=1).error()
    assert error.retry_after_s == 12 * 3600
    assert "1000 tokens a day for this tenant; try again in 12h0m0s" in error.message
    # The 31st of March: the month is over as well.
    clock.advance(12 * 3600)
    assert left(limiter, clock) == [1000, 1500]


def test_budgets_of_money(make, clock):
    prices = {"m": (0.5, 1.5), "*": (100.0, 100.0)}
    quota = Quota(cost_per_day=1 * MICRO)
    limiter, reserve = limited(make, clock, quota, prices=prices)
    use(limiter, clock, reserve(prompt_tokens=1000, max_tokens=1000), 1000, 101)
    # 1000 * 0.5 + 101 * 1.5 millionths, rounded up.
    assert left(limiter, clock, "money") == [MICRO - 652]
    assert limiter.usage.view()["acme"]["cost"] == pytest.approx(0.000652)
    error = reserve(prompt_tokens=2 * MICRO, max_tokens=1).error()
    assert (error.type, error.code) == ("money", "rate_limit_exceeded")
    assert "the budget of 1 a day for this tenant is used up; try again in 12h0m0s" in error.message


def test_both_in_one_question(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=10, tokens_per_minute=1000, concurrency=5)))
    charge = limiter.admit(FREE, "m", clock(), prompt_tokens=500, max_tokens=200)
    assert charge.ok
    assert headers_of(charge)["x-ratelimit-remaining-tokens"] == "300"
    refused = limiter.admit(FREE, "m", clock(), prompt_tokens=500, max_tokens=200)
    assert not refused.ok
    assert refused.error().type == "tokens"
    # Nothing was taken, no request either.
    assert left(limiter, clock, "requests") == [9]
    assert left(limiter, clock, "concurrency") == [4]
    use(limiter, clock, refused, 500, 200)
    use(limiter, clock, charge, 500, 0)
    assert left(limiter, clock) == [500]
    assert left(limiter, clock, "concurrency") == [5]
    assert limiter.verdicts == {("free", "passed"): 1, ("free", "tokens"): 1}
    usage = limiter.usage.get("acme")
    assert (usage.passed, usage.refused, usage.in_flight, usage.prompt_tokens) == (1, 1, 0, 500)


def test_refused_for_its_tokens_after_it_passed_as_a_request(make, clock):
    limiter, reserve = limited(make, clock, Quota(requests_per_minute=10, tokens_per_minute=1000, concurrency=5))
    first, refused = reserve(prompt_tokens=900, max_tokens=10), reserve(prompt_tokens=900, max_tokens=10)
    assert first.ok
    assert not refused.ok
    assert refused.error().type == "tokens"
    close(limiter, refused, clock)
    assert (left(limiter, clock, "requests"), left(limiter, clock, "concurrency")) == ([8], [4])
    assert left(limiter, clock) == [90]
    assert limiter.verdicts == {("free", "passed"): 2, ("free", "tokens"): 1}


# -- the store and the admin -------------------------------------------------------------------------------------------


def test_overrides_take_the_place_of_the_tiers_numbers(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=1, tokens_per_minute=100)))
    assert limiter.check_request(FREE, None, clock()).ok
    assert not limiter.check_request(FREE, None, clock()).ok
    asyncio.run(limiter.override("acme", {"requests_per_minute": 60, "tokens_per_minute": None}))
    clock.advance(1)
    charge = limiter.check_request(FREE, None, clock())
    assert charge.ok
    assert headers_of(charge)["x-ratelimit-limit-requests"] == "60"
    assert "x-ratelimit-limit-tokens" not in headers_of(charge)
    asyncio.run(limiter.override("acme", None))
    assert headers_of(limiter.check_request(FREE, None, clock()))["x-ratelimit-limit-requests"] == "1"


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
        assert headers_of(limiter.check_request(FREE, None, clock()))["x-ratelimit-limit-requests"] == "7"


class SlowStore:
    """Answers when told to, and keeps what it is given."""

    overrides_version = 0

    def __init__(self):
        self.given = []

    def give(self, limits, amounts, lease, taken, now_ms):
        self.given.append(([limit.unit for limit in limits], list(amounts), lease))

    def overrides(self):
        return {}

    def take(self, limits, amounts, lease, now_ms):
        self.pending = Pending(limits, amounts, lease, now_ms)
        return self.pending


def test_a_client_that_leaves_while_the_store_thinks(make, clock):
    store = SlowStore()
    limiter = make(Tier("free", Quota(requests_per_minute=10)), store=store)
    charge = limiter.check_request(FREE, None, clock())
    ended = []
    steps = Steps(charge.answer(), ended.append)
    steps.resume()
    assert not steps.ended
    steps.cancel()
    close(limiter, charge, clock)
    assert store.pending.abandoned
    assert ended == [None]
    assert limiter.usage.get("acme").in_flight == 0


def test_a_client_that_leaves_while_its_tokens_are_asked_for(make, clock):
    """It holds a place, and the store may grant more: the place goes back now, the rest by the store itself."""
    store = SlowStore()
    limiter = make(Tier("free", Quota(tokens_per_minute=10, concurrency=2)), store=store)
    charge = limiter.check_request(FREE, None, clock())
    Steps(charge.answer(), lambda error: None).resume()
    store.pending.set(Taken(0, [1, 10], [0, 0]))
    assert charge.ok
    limiter.reserve_tokens(charge, None, clock(), prompt_tokens=1, max_tokens=1)
    Steps(charge.answer(), lambda error: None).resume()
    for _ in range(2):
        close(limiter, charge, clock)
    assert store.pending.abandoned
    assert store.given == [([Unit.CONCURRENCY], [-1], "p.1")]
    assert limiter.usage.get("acme").in_flight == 0


def test_a_store_that_answers_later(make, clock):
    store = SlowStore()
    limiter = make(Tier("free", Quota(requests_per_minute=10)), store=store)
    charge = limiter.check_request(FREE, None, clock())
    steps = Steps(charge.answer(), lambda error: None)
    steps.resume()
    assert not charge.ok
    store.pending.set(Taken(0, [0], [60_000], denied=0, wait_ms=4200))
    assert steps.ended
    assert charge.pending is None
    assert charge.error().retry_after_s == 5


def test_a_store_that_is_out_of_reach_and_denies(make, clock):
    store = SlowStore()
    limiter = make(Tier("free", Quota(requests_per_minute=10)), store=store)
    charge = limiter.check_request(FREE, None, clock())
    Steps(charge.answer(), lambda error: None).resume()
    store.pending.set(Taken(0, failed=True, uncounted=True, wait_ms=1000))
    error = charge.error()
    assert isinstance(error, Unavailable)
    assert (error.status, error.code, error.retry_after_s) == (503, "limits_unavailable", 1)
    assert limiter.verdicts == {("free", "store"): 1}


def test_memory_is_bounded(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=10, tokens_per_minute=1000, concurrency=2)))
    for number in range(12_000):
        identity = anonymous(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "free")
        charge = limiter.check_request(identity, f"m{number}", clock())
        limiter.reserve_tokens(charge, f"m{number}", clock(), prompt_tokens=10, max_tokens=10)
        use(limiter, clock, charge, 10, 10)
        clock.advance(0.1)
    assert len(limiter.store) < 3000
    assert len(limiter.estimator) <= 2000
    assert len(limiter.usage.view()) <= 1000
    assert len(limiter._plans) <= 5000


def test_tenants_that_were_forgotten_are_counted_anew(make, clock):
    limiter = make(Tier("free", Quota(requests_per_minute=10)))
    limiter.usage = UsageTable(tenants_max=2)
    for tenant in "abac":
        close(limiter, limiter.check_request(Identity(tenant, "free"), None, clock()), clock)
    assert list(limiter.usage.view()) == ["a", "c"]
    close(limiter, limiter.check_request(Identity("b", "free"), None, clock()), clock)
    assert limiter.usage.get("b").passed == 1
    # Its bucket is the store's, and knows of both.
    last = limiter.check_request(Identity("b", "free"), None, clock())
    assert headers_of(last)["x-ratelimit-remaining-requests"] == "7"


def test_who_was_used_lately_is_kept(make, clock):
    limiter = make(Tier("free"))
    limiter.usage = UsageTable(tenants_max=50)
    for number in range(1000):
        for tenant in ("regular", f"t{number}"):
            close(limiter, limiter.check_request(Identity(tenant, "free"), None, clock()), clock)
    assert limiter.usage.get("regular").passed == 1000
    assert len(limiter.usage.view()) == 50


def test_every_gauge_is_back_where_it_was(make, clock):
    """Requests that end in any way, mixed: no place, no token and no count is left over."""
    # A day's budget does not refill before it is looked at.
    limiter, reserve = limited(make, clock, Quota(requests_per_minute=10**6, tokens_per_day=10**6, concurrency=50))
    for number in range(2001):
        charge = reserve(prompt_tokens=7, max_tokens=100)
        if number % 3 == 0:
            charge.settle(7, 0)
        elif number % 3 == 1:
            charge.settle(0, 0)
        close(limiter, charge, clock)
    assert limiter.usage.get("acme").in_flight == 0
    assert left(limiter, clock) == [10**6 - 667 * 7]
    assert left(limiter, clock, "concurrency") == [50]
