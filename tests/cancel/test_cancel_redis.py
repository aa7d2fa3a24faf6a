"""Whoever waits for Redis is cancelled at the first await, at the second, and so on to the last: while it waits, and in
the turn of the loop in which what it waits for comes. No connection, task or lock is left, and nobody goes on."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy.access import Access
from llmproxy.auth.live_keys import LiveKeys
from llmproxy.config.model import Config
from llmproxy.control.key_sync import KeySync
from llmproxy.control.scaling.leader import RedisLeadership
from llmproxy.core.redis_url import parse_redis_url
from llmproxy.limiting import Limiting
from llmproxy.stores.redis import RedisStore
from llmproxy.stores.redis_client import RedisClient
from llmproxy.stores.redis_door import RedisDoor
from llmproxy.stores.redis_keys import RedisKeys
from tests.harness.certificates import Authority
from tests.harness.proxy import config_of, settings
from tests.harness.redis_fleet import MASTER, SentinelServer
from tests.harness.redis_server import TOO_OLD, RedisServer, major_version
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(major_version() < 7, reason=TOO_OLD)

AWAITS_MAX = 60


class Cut:
    """Awaits `story` and cancels its task at the `at`th time that it waits; with `late`, as soon as what it waits for
    is there."""

    def __init__(self, story: Coroutine[Any, Any, None], at: int, late: bool) -> None:
        self._story = story
        self._at = at
        self._late = late
        self.waited = 0

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._story.__await__()
        task = asyncio.current_task()
        assert task is not None
        answer: Any = None
        failure: BaseException | None = None
        while True:
            try:
                future = steps.send(answer) if failure is None else steps.throw(failure)
            except StopIteration:
                return
            self.waited += 1
            if self.waited == self._at:
                if self._late and future is not None:
                    future.add_done_callback(lambda _: task.cancel())
                else:
                    task.get_loop().call_soon(task.cancel)
            answer, failure = None, None
            try:
                answer = yield future
            except BaseException as error:
                failure = error


class Scene:
    """Redis servers, and how many connections they have that are not this test's."""

    def __init__(self, plain: RedisServer, tls: RedisServer, sentinel: SentinelServer) -> None:
        self.plain, self.tls, self.sentinel = plain, tls, sentinel
        self.url, self.tls_url = plain.url, tls.url
        self.sentinel_url = f"sentinel://{sentinel.address}/{MASTER}"
        self._clients = [server.client() for server in (plain, tls, sentinel)]
        self._before = self._connections()

    async def is_empty(self) -> None:
        def so() -> bool:
            assert self._connections() == self._before
            return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

        await until(so, "no connection and no task left")

    def _connections(self) -> list[int]:
        mine = []
        for client in self._clients:
            found = client.client_list()
            mine.append(len([one for one in found if one["flags"] == "N" and one["cmd"] != "client|list"]))
        return mine


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with (
        RedisServer(folder / "plain") as plain,
        RedisServer(folder / "tls", authority=Authority(folder / "ca"), login=("u", "p")) as tls,
        SentinelServer(folder / "sentinel", plain, 1) as sentinel,
    ):
        yield Scene(plain, tls, sentinel)


async def door(url: str) -> None:
    link = await RedisDoor(parse_redis_url(url)).open()
    link.abort()


async def plain_door(scene: Scene) -> None:
    await door(scene.url + "1")


async def tls_door(scene: Scene) -> None:
    await door(scene.tls_url)


async def sentinel_door(scene: Scene) -> None:
    await door(scene.sentinel_url)


async def commands(scene: Scene) -> None:
    client = RedisClient(scene.url)
    try:
        await client.ask("PING")
        await asyncio.gather(client.ask("XREAD", "BLOCK", 5, "STREAMS", "nothing", "$"), client.ask("PING"))
    finally:
        await client.aclose()
        assert not client._turn.locked()


async def limits(scene: Scene) -> None:
    store = RedisStore(parse_redis_url(scene.url), name="cut", rng=random.Random(1), timeout_s=0.5)
    try:
        await store.start()
        await store.set_override("acme", "{}")
    finally:
        await store.close()
        assert not store.connected


def config(scene: Scene, **sections: Any) -> Config:
    return config_of(settings({"main": {"backends": ["http://127.0.0.1:9"]}}, None, **sections))


async def limiting(scene: Scene) -> None:
    limiting = Limiting(random.Random(1), time.monotonic)
    with_limits = config(scene, keys=[{"name": "k", "value": "k", "tier": "free"}], limits={"store": scene.url})
    try:
        await limiting.prepare(with_limits)
        await limiting.commit(with_limits)
    finally:
        await limiting.stop()


async def access(scene: Scene) -> None:
    access = Access(time.time)
    with_keys = config(scene, auth={"store": scene.url})
    try:
        await access.configure(with_keys)
        await access.commit(with_keys)
    finally:
        await access.stop()


async def key_sync(scene: Scene) -> None:
    client = RedisClient(scene.url)
    sync = KeySync(RedisKeys(client.ask), LiveKeys(60.0), wall=time.time, close=client.aclose)
    sync.start()
    try:
        await sync.tried.wait()
    finally:
        await sync.stop()


async def leadership(scene: Scene) -> None:
    client = RedisClient(scene.url)
    leader = RedisLeadership("cut", client.evaluate, clock=time.monotonic)
    try:
        await leader.acquire()
        await leader.release()
    finally:
        await client.aclose()


STORIES: list[Callable[[Scene], Awaitable[None]]] = [
    plain_door, tls_door, sentinel_door, commands, limits, limiting, access, key_sync, leadership
]  # fmt: skip


@pytest.fixture
async def scene(servers: Scene) -> AsyncIterator[Scene]:
    yield servers
    await servers.is_empty()


BOTH = pytest.mark.parametrize("late", [False, True], ids=["waiting", "answered"])


async def cut_everywhere(scene: Scene, make: Callable[[], Awaitable[Coroutine[Any, Any, None]]], late: bool) -> None:
    """Play what `make` makes once for each of its awaits, and cut it there."""
    for at in range(1, AWAITS_MAX):
        cut = Cut(await make(), at, late)

        async def run(cut: Cut = cut) -> None:
            await cut

        task = asyncio.ensure_future(run())
        done, _ = await asyncio.wait([task], timeout=10.0)
        assert done, f"cancelled at await {at}, it goes on for ever"
        await scene.is_empty()
        if cut.waited < at:
            task.result()
            assert at > 1
            return
        assert task.cancelled(), f"the cancellation at await {at} of {cut.waited} was forgotten: {task}"
    raise AssertionError("more awaits than were cut")


@BOTH
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_cancelled_at_each_await(scene: Scene, story: Callable[[Scene], Any], late: bool) -> None:
    async def make() -> Coroutine[Any, Any, None]:
        return story(scene)

    await cut_everywhere(scene, make, late)


@BOTH
async def test_limits_cancelled_at_their_end(scene: Scene, late: bool) -> None:
    async def make() -> Coroutine[Any, Any, None]:
        store = RedisStore(parse_redis_url(scene.url), name="cut", rng=random.Random(1), timeout_s=0.5)
        assert await store.start(5.0)
        return store.close()

    await cut_everywhere(scene, make, late)


@BOTH
async def test_the_copy_of_the_keys_cancelled_at_its_end(scene: Scene, late: bool) -> None:
    async def make() -> Coroutine[Any, Any, None]:
        client = RedisClient(scene.url)
        sync = KeySync(RedisKeys(client.ask), LiveKeys(60.0), wall=time.time, close=client.aclose)
        sync.start()
        await sync.tried.wait()
        return sync.stop()

    await cut_everywhere(scene, make, late)
