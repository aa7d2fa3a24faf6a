"""One leader at a time, over a real Redis; and an old leader's word counts for nothing."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llmproxy.control.scaling.leader import RedisLeadership
from llmproxy.core.clock import ManualClock
from llmproxy.stores.redis_client import RedisClient
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running.url


@pytest.fixture
async def redis(server: str) -> AsyncIterator[RedisClient]:
    scripts = RedisClient(server)
    yield scripts
    await scripts.aclose()


async def test_only_one_leads(redis: RedisClient) -> None:
    clock = ManualClock(100.0)
    first, second = (RedisLeadership("only-one", redis.evaluate, clock=clock) for _ in range(2))
    token = await first.acquire()
    assert token is not None
    assert await second.acquire() is None
    assert await first.acquire() == token, "kept, with the same token"
    assert first.is_held(token)
    await first.release()
    later = await second.acquire()
    assert later is not None
    assert later > token


async def test_a_redis_that_forgot_everything_gives_a_higher_token(redis: RedisClient) -> None:
    clock, wall = ManualClock(100.0), ManualClock(1.7e9)
    one, other = (RedisLeadership("forgot", redis.evaluate, clock=clock, wall=wall) for _ in range(2))
    tokens = []
    for leader in (one, other, one):
        tokens.append(await leader.acquire())
        await leader.release()
    await redis.evaluate("return redis.call('FLUSHALL')", [], [])
    wall.advance(1.0)
    newest = await other.acquire()
    assert newest is not None
    assert all(newest > token for token in tokens if token is not None)
    assert await other.acquire() == newest, "and it is kept"


async def test_a_leader_that_stops_renewing_knows_before_the_next_one_comes(redis: RedisClient) -> None:
    clock = ManualClock(100.0)
    stopped = RedisLeadership("stopped", redis.evaluate, clock=clock, ttl_s=0.3)
    token = await stopped.acquire()
    assert token is not None
    other = RedisLeadership("stopped", redis.evaluate, clock=ManualClock(0.0), ttl_s=0.3)

    async def taken_over() -> int | None:
        return await other.acquire()

    newer = await until(taken_over, "the next leader")
    assert newer > token, "the fencing token only grows"
    # By its own clock no more than a fraction of the time has passed, or more than all of it: either way it is out.
    clock.advance(0.19)
    assert not stopped.is_held(token)
    assert await stopped.acquire() is None


async def test_another_pool_is_another_lock(redis: RedisClient) -> None:
    clock = ManualClock()
    assert await RedisLeadership("a", redis.evaluate, clock=clock).acquire()
    assert await RedisLeadership("b", redis.evaluate, clock=clock).acquire()


async def test_giving_back_what_another_holds_does_nothing(redis: RedisClient) -> None:
    clock = ManualClock()
    first, second = (RedisLeadership("give-back", redis.evaluate, clock=clock, ttl_s=0.2) for _ in range(2))
    assert await first.acquire()

    async def taken_over() -> int | None:
        return await second.acquire()

    await until(taken_over, "the next leader")
    await first.release()
    assert await first.acquire() is None


async def test_without_redis_nobody_leads_any_more(tmp_path: Path) -> None:
    clock = ManualClock()
    with RedisServer(tmp_path) as running:
        scripts = RedisClient(running.url)
        leader = RedisLeadership("main", scripts.evaluate, clock=clock, ttl_s=10.0)
        token = await leader.acquire()
        assert token is not None
    clock.advance(5.0)
    assert await leader.acquire() == token, "for as long as the lock cannot have run out"
    clock.advance(2.0)
    assert await leader.acquire() is None
    assert not leader.is_held(token)
    await scripts.aclose()


async def test_whatever_a_clock_says_no_token_is_lower_than_one_that_was_heard_of(redis: RedisClient) -> None:
    clock = ManualClock()
    first, second = (RedisLeadership("emptied", redis.evaluate, clock=clock, wall=lambda: 0.0) for _ in range(2))
    for _ in range(4):
        token = await first.acquire()
        await first.release()
    token = await first.acquire()
    assert token == 5
    assert await second.acquire() is None
    await redis.evaluate("return redis.call('DEL', KEYS[1], KEYS[2])", first._keys, [])
    assert await second.acquire() == 6, "a receiver that keeps the highest would refuse it for ever"
    assert await first.acquire() is None
