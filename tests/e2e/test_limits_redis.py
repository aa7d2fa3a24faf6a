"""Limits on a real Redis that is slow, frozen, killed, read-only, full, flushed and started anew."""

import asyncio
import random
import socket
import time

import pytest

from llmproxy.core.limits import Kind, Limit, Pending, Scope, Taken, Unit
from llmproxy.core.redis_url import parse_redis_url
from llmproxy.core.step import Steps
from llmproxy.limiting import outcome
from llmproxy.stores.redis import RedisStore
from llmproxy.stores.redis_alone import OnFailure
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.harness.tcp_delay import DelayedPort
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

# Generous: what these tests are about must not depend on a busy machine. The lab holds the real figure.
TIMEOUT_S = 0.25


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def open_store(server):
    stores = []

    async def open_store(url=None, **options):
        options.setdefault("timeout_s", TIMEOUT_S)
        name = f"p{len(stores)}"
        store = RedisStore(parse_redis_url(url or server.url), name=name, rng=random.Random(1), **options)
        stores.append(store)
        await store.start(patience_s=5.0)
        return store

    yield open_store
    await asyncio.gather(*(store.close() for store in stores))


def bucket(key="t:acme:rpm", rate=60, burst=None):
    return Limit(key, Kind.BUCKET, Unit.REQUESTS, Scope.TENANT, rate, burst or rate)


def places(size=2):
    return Limit("t:acme:now", Kind.LEASES, Unit.CONCURRENCY, Scope.TENANT, size)


def now_ms():
    return int(time.time() * 1000)


async def ask(store, limits, amounts, lease=""):
    async def story():
        taken = store.take(limits, amounts, lease, now_ms())
        return taken if isinstance(taken, Taken) else await taken

    async with asyncio.timeout(10):
        return await outcome(story())


async def passed(store, count, limit):
    return sum([(await ask(store, [limit], [1])).ok for _ in range(count)])


async def settled(store):
    """All corrections have been said and answered."""
    await until(lambda: not store._giving and not store._sent, "corrections sent")


async def test_taken_together_or_not_at_all(open_store):
    store = await open_store()
    wide, narrow = bucket("a", 100), bucket("b", 2)
    assert [(await ask(store, [wide, narrow], [1, 1])).ok for _ in range(3)] == [True, True, False]
    refused = await ask(store, [wide, narrow], [1, 1])
    assert refused.denied == 1
    assert 28_000 < refused.wait_ms <= 30_000
    assert refused.remaining[0] == 98
    assert store.counts == {"redis": 4}


async def test_questions_of_one_turn_share_a_round_trip(open_store, server):
    store = await open_store()
    before = server.client().info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    answers = await asyncio.gather(*(ask(store, [bucket(rate=10)], [1]) for _ in range(30)))
    assert sum(taken.ok for taken in answers) == 10
    assert server.client().info("commandstats")["cmdstat_evalsha"]["calls"] - before == 1


async def test_four_proxies_are_exact_together(open_store, server):
    """Hammered far beyond the rate: what passes is burst + rate * t, to within one, by Redis's own clock."""
    stores = [await open_store() for _ in range(4)]
    limit = bucket(rate=6000, burst=200)
    client = server.client()

    def redis_ms():
        seconds, micros = client.time()
        return seconds * 1000 + micros // 1000

    # All of it at once: a full bucket would gain nothing while this machine takes its time to ask on.
    began, count = redis_ms(), 200 * (await ask(stores[0], [limit], [200])).ok
    began_at_last = redis_ms()
    while redis_ms() - began < 600:
        answers = await asyncio.gather(*(ask(store, [limit], [1]) for store in stores for _ in range(20)))
        count += sum(taken.ok for taken in answers)
    # What is left belongs to the last moments too; how long each question takes is the machine's affair.
    ended = redis_ms()
    rest = (await ask(stores[0], [limit], [0])).remaining[0]
    assert count + rest >= 200 + 6000 * (ended - began_at_last) / 60_000 - 2
    assert count <= 200 + 6000 * (redis_ms() - began) / 60_000 + 1
    assert all(store.counts.keys() == {"redis"} for store in stores)


async def test_what_is_given_back_is_there(open_store):
    store = await open_store()
    limit = bucket(rate=10)
    taken = await ask(store, [limit], [10])
    assert not (await ask(store, [limit], [5])).ok
    store.give([limit], [-6], "", taken, now_ms())
    await settled(store)
    again = await ask(store, [limit], [5])
    assert again.ok
    assert again.remaining[0] == 1


async def test_a_debt_is_paid_first(open_store):
    store = await open_store()
    limit = bucket(rate=60)
    taken = await ask(store, [limit], [10])
    store.give([limit], [110], "", taken, now_ms())
    await settled(store)
    refused = await ask(store, [limit], [1])
    assert not refused.ok
    assert 55_000 < refused.wait_ms <= 61_000


async def test_leases_come_back_by_release_and_by_expiry(open_store):
    dies = await open_store(lease_ttl_s=3.0)
    lives = await open_store(lease_ttl_s=3.0)
    first = await ask(lives, [places(2)], [1], "lives.1")
    assert (await ask(dies, [places(2)], [1], "dies.1")).ok
    assert not (await ask(lives, [places(2)], [1], "lives.2")).ok
    # Killed: it renews nothing any more, and says nothing.
    await dies._keeper.stop()
    dies._drop("closed")

    async def one_is_free():
        return (await ask(lives, [places(2)], [1], "lives.3")).ok

    await until(one_is_free, "the place of the one that died")
    # The living one's was renewed all the while.
    assert not (await ask(lives, [places(2)], [1], "lives.4")).ok
    lives.give([places(2)], [-1], "lives.1", first, now_ms())
    await settled(lives)
    assert (await ask(lives, [places(2)], [1], "lives.5")).ok


async def test_whoever_left_while_waiting_keeps_nothing(open_store):
    store = await open_store()
    limits = [bucket(rate=10), places(1)]

    async def story():
        taken = store.take(limits, [1, 1], "left.1", now_ms())
        assert isinstance(taken, Pending)
        try:
            await taken
        except BaseException:
            taken.abandoned = True
            raise

    steps = Steps(story(), lambda error: None)
    steps.resume()
    store._flush()
    steps.cancel()
    await settled(store)
    taken = await ask(store, limits, [1, 1], "next.1")
    assert taken.ok
    assert list(taken.remaining) == [9, 0]


# -- Redis in trouble --------------------------------------------------------------------------------------------------


async def reconnected(store):
    await until(lambda: store.connected, "a link to Redis", timeout_s=10)


@pytest.mark.parametrize(("on_failure", "expected"), [(OnFailure.LOCAL, 6), (OnFailure.ALLOW, 20), (OnFailure.DENY, 0)])
async def test_frozen(open_store, server, on_failure, expected):
    store = await open_store(on_failure=on_failure)
    limit = bucket(rate=10)
    assert await passed(store, 4, limit) == 4
    server.freeze()
    assert await passed(store, 20, limit) == expected
    assert store.links["timeout"] == 1
    assert not store.connected
    last_moment = time.monotonic() + 0.05
    await until(lambda: time.monotonic() > last_moment, "the last moment of what was asked")
    server.resume()
    await reconnected(store)
    # Nothing that was asked while it was frozen is done by it now; what passed here is charged there.
    await settled(store)
    left = (await ask(store, [limit], [0])).remaining[0]
    assert left == (0 if on_failure is OnFailure.LOCAL else 6)
    assert store.counts["redis"] == 5


async def test_the_limit_on_time_is_its_own_and_not_the_heartbeats(open_store, server):
    store = await open_store()
    await store._keeper.stop()
    server.freeze()
    assert (await ask(store, [bucket()], [1])).local
    server.resume()


async def test_killed_and_started_anew_without_a_second_burst(open_store, server):
    store = await open_store()
    limit = bucket(rate=10)
    assert await passed(store, 5, limit) == 5
    server.kill()
    await until(lambda: not store.connected, "the loss")
    assert await passed(store, 20, limit) == 5
    server.start()
    await reconnected(store)
    # Redis forgot the first five; the five that passed meanwhile it was told.
    assert await passed(store, 20, limit) == 5


async def test_alone_each_has_its_part(open_store, server):
    stores = [await open_store() for _ in range(4)]
    for store in stores:
        await until(lambda store=store: store.proxies == 4, "all four seen", timeout_s=5)
    server.kill()
    for store in stores:
        await until(lambda store=store: not store.connected, "the loss")
    assert [await passed(store, 20, bucket(rate=40)) for store in stores] == [10] * 4


async def test_alone_leases_are_bounded_and_known_afterwards(open_store, server):
    store = await open_store()
    assert (await ask(store, [places(2)], [1], "one")).ok
    server.kill()
    await until(lambda: not store.connected, "the loss")
    second = await ask(store, [places(2)], [1], "two")
    assert second.ok
    assert not (await ask(store, [places(2)], [1], "three")).ok
    server.start()
    await reconnected(store)
    await settled(store)
    assert not (await ask(store, [places(2)], [1], "four")).ok
    store.give([places(2)], [-1], "two", second, now_ms())
    await settled(store)
    assert (await ask(store, [places(2)], [1], "five")).ok


async def test_slow_is_as_good_as_away(open_store, server):
    async with DelayedPort(server.port) as slow:
        store = await open_store(f"redis://127.0.0.1:{slow.port}", timeout_s=0.1)
        assert await passed(store, 3, bucket(rate=10)) == 3
        slow.delay_s = 0.2
        assert await passed(store, 20, bucket(rate=10)) == 7
        assert store.links["timeout"] == 1
        # As long as it is slow it is not used, however often it is tried.
        await until(lambda: not store.connected, "given up")
        slow.delay_s = 0.0
        await reconnected(store)
        await settled(store)
        assert (await ask(store, [bucket(rate=10)], [0])).remaining[0] == 0
        await store.close()


async def test_a_stall_is_over_when_it_is_over(open_store, server):
    store = await open_store(timeout_s=0.1)
    sleeping = asyncio.create_task(asyncio.to_thread(server.client().execute_command, "DEBUG", "SLEEP", "0.6"))
    await until(lambda: asyncio.to_thread(_is_stalled, server), "a stalled server")
    assert (await ask(store, [bucket()], [1])).local
    await sleeping
    await reconnected(store)
    assert not (await ask(store, [bucket()], [1])).local


def _is_stalled(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as client:
        client.sendall(b"PING\r\n")
        try:
            return client.recv(10) == b""
        except TimeoutError:
            return True


async def test_read_only(open_store, server):
    store = await open_store()
    assert await passed(store, 4, bucket(rate=10)) == 4
    # A master that is not there.
    server.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    assert await passed(store, 20, bucket(rate=10)) == 6
    assert not store.connected
    server.client().execute_command("REPLICAOF", "NO", "ONE")
    await reconnected(store)
    assert (await ask(store, [bucket(rate=10)], [0])).remaining[0] == 0


async def test_what_passed_meanwhile_is_known_before_anything_is_asked(open_store, server):
    """More than one round trip takes, and asked in the very turn in which the link is up again."""
    store = await open_store()
    limits = [bucket(key=f"t:{number}", rate=10) for number in range(4_000)]
    server.kill()
    await until(lambda: not store.connected, "the loss")
    assert all([(await ask(store, [limit], [10])).ok for limit in limits])
    asked = []
    say_up = store._keeper._on_up

    def up(link):
        say_up(link)
        asked.extend(store.take([limit], [1], "", now_ms()) for limit in (limits[0], limits[-1]))

    store._keeper._on_up = up
    server.start()
    await reconnected(store)

    async def answer(pending):
        return await pending

    async with asyncio.timeout(10):
        answers = [await outcome(answer(pending)) for pending in asked]
    assert [(taken.local, taken.ok) for taken in answers] == [(False, False)] * 2


async def test_out_of_clients(open_store, server):
    client = server.client()
    client.ping()
    client.config_set("maxclients", 1)
    store = RedisStore(parse_redis_url(server.url), name="late", rng=random.Random(1), timeout_s=TIMEOUT_S)
    assert not await store.start(patience_s=0.2)
    assert (await ask(store, [bucket()], [1])).local
    client.config_set("maxclients", 100)
    await reconnected(store)
    assert not (await ask(store, [bucket()], [1])).local
    await store.close()


async def test_flushed_and_scripts_forgotten(open_store, server):
    store = await open_store()
    assert await passed(store, 10, bucket(rate=10)) == 10
    held = await ask(store, [places(1)], [1], "held")
    server.client().execute_command("SCRIPT", "FLUSH")
    store.give([bucket(rate=10)], [-3], "", held, now_ms())
    answers = await asyncio.gather(*(ask(store, [bucket(rate=10)], [1]) for _ in range(9)))
    await settled(store)
    assert sum(taken.ok for taken in answers) in (0, 3)
    assert (await ask(store, [bucket(rate=10)], [0])).remaining[0] + sum(taken.ok for taken in answers) == 3
    server.client().flushall()
    assert await passed(store, 20, bucket(rate=10)) == 10
    assert store.links == {"up": 1}

    async def known_again():
        store._renew()
        await settled(store)
        return not (await ask(store, [places(1)], [1], "another")).ok

    await until(known_again, "the lease that is held")


async def test_out_of_memory(open_store, server, caplog):
    store = await open_store()
    client = server.client()
    assert await passed(store, 4, bucket(rate=10)) == 4
    client.config_set("maxmemory", 1)
    assert await passed(store, 20, bucket(rate=10)) == 6
    assert not store.connected
    assert "(OOM command not allowed" in caplog.text
    client.config_set("maxmemory", 0)
    await reconnected(store)
    assert (await ask(store, [bucket(rate=10)], [0])).remaining[0] == 0


async def test_scripts_forgotten_again_and_again_under_load(open_store, server):
    """No link is given up for it, and nothing is charged twice or not at all."""
    burst = 4000
    limit = bucket(rate=1, burst=burst)
    stores = [await open_store() for _ in range(3)]
    client = server.client()

    async def hammer(store):
        return sum([await passed(store, 20, limit) for _ in range(10)])

    forgetting = asyncio.Event()

    async def forget():
        while not forgetting.is_set():
            await asyncio.to_thread(client.execute_command, "SCRIPT", "FLUSH")

    task = asyncio.create_task(forget())
    total = sum(await asyncio.gather(*(hammer(store) for store in stores for _ in range(10))))
    forgetting.set()
    await task
    assert total == burst
    assert client.info("commandstats")["cmdstat_eval"]["calls"] > 3
    assert {tuple(store.links.items()) for store in stores} == {(("up", 1),)}
    assert all(store.counts["local"] == 0 for store in stores)
    await asyncio.gather(*(store.close() for store in stores))
    reader = await open_store()
    assert (await ask(reader, [limit], [0])).remaining[0] <= 1


async def test_corrections_on_the_way_when_the_link_broke_count_once(open_store, server):
    store = await open_store()
    limit = bucket(rate=6, burst=60)
    taken = await ask(store, [limit], [30])
    server.freeze()
    store.give([limit], [-10], "", taken, now_ms())
    store._flush()
    assert (await ask(store, [limit], [1])).local
    server.resume()
    await reconnected(store)
    await settled(store)
    # The one that passed here is charged, perhaps twice: Redis may have woken up in time for the question as well.
    assert 38 <= (await ask(store, [limit], [0])).remaining[0] <= 40


async def test_it_starts_without_redis(server):
    server.kill()
    store = RedisStore(parse_redis_url(server.url), name="early", rng=random.Random(1), timeout_s=TIMEOUT_S)
    assert not await store.start(patience_s=0.1)
    assert await passed(store, 20, bucket(rate=10)) == 10
    server.start()
    await reconnected(store)
    assert (await ask(store, [bucket(rate=10)], [0])).remaining[0] == 0
    await store.close()


async def test_overrides_reach_every_proxy(open_store):
    here, there = await open_store(), await open_store()
    await here.set_override("acme", "text")
    assert here.overrides() == {"acme": "text"}
    await until(lambda: there.overrides() == {"acme": "text"}, "the other's", timeout_s=5)
    await there.set_override("acme", None)
    await until(lambda: not here.overrides(), "the first one's", timeout_s=5)


async def test_overrides_without_redis_are_refused(open_store, server):
    store = await open_store()
    server.kill()
    with pytest.raises(ConnectionError):
        await store.set_override("acme", "text")


async def test_a_password_and_a_database(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        server.client().config_set("requirepass", "s3:cr@t")
        url = f"redis://:s3%3Acr%40t@127.0.0.1:{server.port}/3"
        store = RedisStore(parse_redis_url(url), name="p", rng=random.Random(1), timeout_s=TIMEOUT_S)
        assert await store.start(patience_s=5)
        assert not (await ask(store, [bucket()], [1])).local
        await store.close()


async def test_nothing_is_left_behind(open_store):
    store = await open_store()
    await ask(store, [bucket()], [1])
    await store.close()
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "limits-redis"] == []
    assert (await ask(store, [bucket()], [1])).local


async def test_asking_for_nothing_breaks_no_link(open_store):
    """As the admin does for a tenant without limits."""
    store = await open_store()
    assert (await ask(store, (), ())).ok
    assert store.links == {"up": 1}
