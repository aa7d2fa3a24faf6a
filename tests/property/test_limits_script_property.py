"""The script in Redis and the memory store are each other's oracle: the same history gives the same answers, to the
last digit."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmproxy.core.buckets import DAY_MS
from llmproxy.core.limits import BUDGET_MAX, SIZE_MAX, Kind, Limit, Pending, Scope, Taken, Unit
from llmproxy.stores.memory import MemoryStore
from llmproxy.stores.redis_batch import Batch, Gift, read_answer
from llmproxy.stores.script import LIMITS
from tests.harness.redis_server import MISSING, RedisServer, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

TTL_MS = 20_000
NOON = int(datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.client()


SIZES = st.one_of(st.integers(1, 30), st.integers(1, 10**6), st.just(SIZE_MAX), st.integers(1, SIZE_MAX))


@st.composite
def limits(draw):
    found = []
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from([Kind.BUCKET, Kind.BUCKET, Kind.DAY, Kind.MONTH, Kind.LEASES]))
        budgets = st.one_of(SIZES, st.just(BUDGET_MAX), st.integers(1, BUDGET_MAX))
        size = draw(st.integers(1, 3) if kind is Kind.LEASES else SIZES if kind is Kind.BUCKET else budgets)
        burst = draw(st.one_of(st.just(size), SIZES)) if kind is Kind.BUCKET else 0
        found.append(Limit(f"l{number}", kind, Unit.TOKENS, Scope.TENANT, size, burst))
    return found


@st.composite
def histories(draw):
    known = draw(limits())
    steps = []
    for _ in range(draw(st.integers(1, 12))):
        chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=len(known), unique=True))
        takes = draw(st.booleans())
        amounts = [_amount(draw, limit, takes) for limit in chosen]
        pause = draw(
            st.one_of(
                st.integers(0, 100),
                st.integers(0, 10**6),
                st.integers(-100_000, 0),
                st.sampled_from([DAY_MS // 2, DAY_MS, 28 * DAY_MS, 31 * DAY_MS]),
            )
        )
        age = draw(st.sampled_from([0, 1000, DAY_MS, 31 * DAY_MS]))
        steps.append((takes, chosen, amounts, f"lease{draw(st.integers(0, 4))}", pause, age))
    return steps


def _amount(draw, limit, takes):
    if limit.kind is Kind.LEASES:
        return draw(st.integers(0 if takes else -1, 1))
    most = max(limit.size, limit.burst)
    near = st.sampled_from([0, 1, 2, limit.size, max(0, limit.burst - 1), most + 1])
    amount = draw(st.one_of(near, st.integers(0, min(most, SIZE_MAX // 100))))
    return amount if takes or draw(st.booleans()) else -amount


def run(client, batch, now_ms):
    reply = client.execute_command(*batch.command(("EVAL", LIMITS), "", "given", 0, TTL_MS, now_ms))
    assert reply[0] == now_ms
    return reply[1:]


def shown(taken):
    return taken.denied, taken.wait_ms, list(taken.remaining), list(taken.reset_ms)


LEASES = Limit("l0", Kind.LEASES, Unit.TOKENS, Scope.TENANT, 3, 0)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
# The clock is set back between two leases, and the second one ends first.
@example(
    history=[
        (True, [LEASES], [1], "lease1", 0, 0),
        (True, [LEASES], [1], "lease2", -5000, 0),
        (True, [LEASES], [1], "lease3", 1000, 0),
        (True, [LEASES], [0], "", TTL_MS - 1000, 0),
    ]
)
def test_the_same_history_gives_the_same_answers(client, history):
    client.flushall()
    memory = MemoryStore(lease_ttl_ms=TTL_MS)
    now = NOON
    for number, (takes, chosen, amounts, lease, pause, age) in enumerate(history, 1):
        now += pause
        if takes:
            [answer] = run(client, Batch([Pending(chosen, amounts, lease, now)], [], 0, 0.0), now)
            assert shown(read_answer(now, answer)) == shown(memory.take(chosen, amounts, lease, now))
        else:
            assert run(client, Batch([], [Gift(chosen, amounts, lease, now - age)], number, 0.0), now) == []
            memory.give(chosen, amounts, lease, Taken(now - age), now)
        # What is in there now, without taking anything.
        look = [0] * len(chosen)
        [answer] = run(client, Batch([Pending(chosen, look, "", now)], [], 0, 0.0), now)
        assert shown(read_answer(now, answer)) == shown(memory.take(chosen, look, "", now))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.integers(1, 5000), extra=st.integers(0, 50), seed=st.integers(0, 10**6))
def test_never_more_than_burst_and_rate_by_time(client, rate, extra, seed):
    """Hammered at random moments: within one of burst + rate * t, however the looks fall."""
    client.flushall()
    rng = random.Random(seed)
    limit = Limit("l", Kind.BUCKET, Unit.REQUESTS, Scope.TENANT, rate, rate + extra)
    passed, now = 0, NOON
    memory = MemoryStore()
    begun = now
    for _ in range(3 * (rate + extra)):
        passed += memory.take([limit], [1], "", now).ok
    for _ in range(2000):
        now += rng.choice([0, 1, 1, 2, 7])
        passed += memory.take([limit], [1], "", now).ok
        while memory.take([limit], [1], "", now).ok:
            passed += 1
    exact = rate + extra + rate * (now - begun) / 60_000
    assert exact - 1 < passed <= exact


def test_what_is_given_twice_counts_once(client):
    client.flushall()
    limit = Limit("l", Kind.BUCKET, Unit.TOKENS, Scope.TENANT, 60, 60)
    for sequence, left in ((1, 50), (1, 50), (2, 40), (1, 40), (2, 40)):
        run(client, Batch([], [Gift([limit], [10], "", NOON)], sequence, 0.0), NOON)
        [answer] = run(client, Batch([Pending([limit], [0], "", NOON)], [], 0, 0.0), NOON)
        assert answer[2] == left


def test_a_question_that_comes_too_late_takes_nothing(client):
    client.flushall()
    limit = Limit("l", Kind.BUCKET, Unit.TOKENS, Scope.TENANT, 60, 60)
    batch = Batch([Pending([limit], [10], "", NOON)], [], 0, 0.0)
    command = batch.command(("EVAL", LIMITS), "", "given", NOON - 1, TTL_MS, NOON)
    [late] = client.execute_command(*command)[1:]
    assert read_answer(NOON, late) is None
    assert client.keys() == []
