"""Tables that proxies share, over a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llmproxy.control.scaling.tables import LocalTable, SharedTable
from llmproxy.stores.redis_client import RedisClient
from tests.harness.redis_server import MISSING, RedisServer, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)
KEY = "llmproxy:test"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[RedisClient]:
    client = RedisClient(server.url)
    yield client
    await client.aclose()


async def test_what_one_puts_the_other_reads(redis: RedisClient) -> None:
    one, other = SharedTable(redis.evaluate, KEY), SharedTable(redis.evaluate, KEY)
    assert not one.known
    one.put("a", "1")
    one.put("b", "")
    assert one.values == {"a": "1", "b": ""}, "here at once"
    assert await one.sync()
    assert await other.sync()
    assert other.known
    assert other.values == {"a": "1", "b": ""}
    other.put("a", None)
    assert other.values == {"b": ""}
    await other.sync()
    await one.sync()
    assert one.values == {"b": ""}


async def test_another_key_is_another_table(redis: RedisClient) -> None:
    one, other = SharedTable(redis.evaluate, KEY), SharedTable(redis.evaluate, f"{KEY}:other")
    one.put("a", "1")
    await one.sync()
    await other.sync()
    assert other.values == {}


async def test_while_redis_is_away_what_is_known_stays_and_what_is_put_waits(
    server: RedisServer, redis: RedisClient
) -> None:
    one, other = SharedTable(redis.evaluate, KEY), SharedTable(redis.evaluate, KEY)
    one.put("old", "1")
    await one.sync()
    await other.sync()
    server.kill()
    one.put("new", "2")
    assert not await one.sync()
    assert not await other.sync()
    assert (one.values, other.values) == ({"old": "1", "new": "2"}, {"old": "1"})
    # It comes back, and has forgotten everything.
    server.start()
    assert await other.sync()
    assert other.values == {"old": "1"}
    assert await one.sync()
    assert await other.sync()
    assert one.values == other.values == {"old": "1", "new": "2"}


async def test_an_empty_table_that_is_there_is_empty(server: RedisServer, redis: RedisClient) -> None:
    """What was taken out by others does not come back as if Redis had forgotten it."""
    one, other = SharedTable(redis.evaluate, KEY), SharedTable(redis.evaluate, KEY)
    one.put("a", "1")
    await one.sync()
    await other.sync()
    one.put("a", None)
    await one.sync()
    await other.sync()
    assert other.values == {}


async def test_an_answer_that_was_overtaken_takes_nothing_back() -> None:
    """The first question is asked before something is put, and answered after that was handed over."""
    held: list[asyncio.Future[None]] = []
    stored: dict[str, str] = {}

    async def evaluate(script: str, keys: list[str], arguments: list[str]) -> object:
        for name, what, value in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
            stored.update({name: value} if what == "put" else {})
        answer = [part.encode() for item in stored.items() for part in item]
        if not held:
            held.append(asyncio.get_running_loop().create_future())
            await held[0]
        return [0, answer]

    table = SharedTable(evaluate, KEY)
    first = asyncio.create_task(table.sync())
    while not held:
        await asyncio.sleep(0)
    table.put("pause", "fire")
    second = asyncio.create_task(table.sync())
    await asyncio.sleep(0)
    held[0].set_result(None)
    assert await first
    assert table.values == {"pause": "fire"}
    assert await second
    assert table.values == stored == {"pause": "fire"}


async def test_alone_it_is_a_dictionary() -> None:
    table = LocalTable()
    table.put("a", "1")
    assert await table.sync()
    assert table.values == {"a": "1"}
    table.put("a", None)
    table.put("never", None)
    assert table.values == {}
