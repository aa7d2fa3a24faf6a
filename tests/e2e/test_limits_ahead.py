"""A busy tenant's limits on a real Redis: few round trips, and an account that stays right when Redis does not."""

import asyncio
import random
import time

import pytest

from llmproxy.core.limits import Kind, Limit, Scope, Taken, Unit
from llmproxy.core.redis_url import parse_redis_url
from llmproxy.limiting import outcome
from llmproxy.stores.redis import RedisStore
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

# A minute has too little of a token to matter: what is missing was used.
TOKENS = Limit("t:busy:tpm", Kind.BUCKET, Unit.TOKENS, Scope.TENANT, 1, 1_000_000)
PLACES = Limit("t:busy:now", Kind.LEASES, Unit.CONCURRENCY, Scope.TENANT, 200)
LIMITS, AMOUNTS = (TOKENS, PLACES), (100, 1)


def now_ms():
    return int(time.time() * 1000)


class Busy:
    """Asks ten times in each turn, settles at less and releases."""

    def __init__(self, store):
        self.store, self.number, self.used = store, 0, 0

    async def one(self):
        self.number += 1
        lease = f"{self.store._keeper._name}.{self.number}"

        async def story():
            taken = self.store.take(LIMITS, AMOUNTS, lease, now_ms())
            return taken if isinstance(taken, Taken) else await taken

        taken = await outcome(story())
        assert taken.ok
        self.used += 40
        self.store.give((TOKENS,), (-60,), "", taken, now_ms())
        self.store.give((PLACES,), (-1,), lease, taken, now_ms())

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.gather(*(self.one() for _ in range(10)))
                await asyncio.sleep(0.001)


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def open_store(server):
    stores = []

    async def open_store():
        name = f"p{len(stores)}"
        store = RedisStore(parse_redis_url(server.url), name=name, rng=random.Random(1), timeout_s=0.25)
        stores.append(store)
        await store.start(patience_s=5.0)
        return store

    yield open_store
    await asyncio.gather(*(store.close() for store in stores))


def missing(server):
    """Of tokens and of places, by Redis itself."""
    raw = server.client().get("{llmproxy}:t:busy:tpm")
    return (0 if raw is None else 1_000_000 - int(raw.split(b":")[0])), server.client().zcard("{llmproxy}:t:busy:now")


async def comes_to(server, used):
    def agrees():
        assert missing(server) == (used, 0)
        return True

    await until(agrees, "what was used, and no more")


async def test_a_busy_tenant_costs_few_round_trips(open_store, server):
    store = await open_store()
    busy = Busy(store)
    await busy.until(lambda: store.counts["ahead"] >= 2000)
    calls = server.client().info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls < busy.number / 5
    assert store.counts["redis"] < busy.number / 5
    await comes_to(server, busy.used)


async def test_of_several_proxies_each_is_charged_what_it_used(open_store, server):
    busies = [Busy(await open_store()) for _ in range(3)]
    await asyncio.gather(*(busy.until(lambda busy=busy: busy.store.counts["ahead"] >= 300) for busy in busies))
    await comes_to(server, sum(busy.used for busy in busies))


async def test_frozen_while_something_is_held(open_store, server):
    store = await open_store()
    busy = Busy(store)
    await busy.until(lambda: store.counts["ahead"] >= 300)
    server.freeze()
    await busy.until(lambda: not store.connected)
    await busy.until(lambda: store.counts["local"] >= 300)
    server.resume()
    await until(lambda: store.connected, "a link to Redis", timeout_s=10)
    await busy.until(lambda: store.counts["ahead"] >= 600)
    # Of a question that Redis read and was not heard for, nobody knows: as much as is held may be missing.
    await until(lambda: missing(server)[1] == 0, "no places held", timeout_s=10)
    await until(lambda: not store._ahead.busy, "accounts closed")
    assert 0 <= missing(server)[0] - busy.used <= 1_000_000 / 64


async def test_whoever_ends_gives_back_what_it_holds(open_store, server):
    store = await open_store()
    busy = Busy(store)
    await busy.until(lambda: store.counts["ahead"] >= 300)
    assert missing(server)[0] > busy.used
    await store.close()
    await comes_to(server, busy.used)
