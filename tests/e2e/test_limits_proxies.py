"""Proxies that share one Redis: one limit for all of them, and traffic that goes on when Redis does not."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.processes import ServingProcess
from tests.harness.proxy import Proxy, settings
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.tcp_delay import DelayedPort
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

KEYS = [{"name": "dev", "tier": "counted", "value": "sk-dev"}]
KEY = [("Authorization", "Bearer sk-dev")]
WHOLE = chat(stream=False, max_tokens=3)
FULL = 1_000_000
COUNTED = {"tokens_per_minute": 1, "burst": {"tokens": FULL}, "concurrency": 50}


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def sections(redis: RedisServer, **quota: Any) -> dict[str, Any]:
    # Patient: what these tests are about must not depend on a busy machine.
    limits = {"store": redis.url, "store_timeout": "500ms"}
    return {"keys": KEYS, "tiers": {"counted": quota}, "limits": limits}


def counted(redis: RedisServer) -> tuple[int, int]:
    """What is missing from the bucket of tokens, and how many places are held, by Redis itself."""
    client = redis.client()
    raw = client.get("{llmproxy}:t:dev:tpm")
    return (0 if raw is None else FULL - int(raw.split(b":")[0])), client.zcard("{llmproxy}:t:dev:now")


async def comes_to(redis: RedisServer, proxy: Proxy) -> None:
    """Redis has heard all: nothing is held, and what is missing is what was used."""
    await proxy.at_rest()

    def agrees() -> bool:
        usage = proxy.handler.limiter.usage.view()["dev"]
        expected = usage["prompt_tokens"] + usage["completion_tokens"]
        assert counted(redis) == (expected, 0)
        return True

    await until(agrees, "what was used, and no more")


async def test_settled_and_released_there_on_every_path(stage: Stage, redis: RedisServer) -> None:
    engine = await stage.backend(itl_s=0.002)
    proxy = await stage.proxy(engine, pool={"retry": {"attempts": 1}}, **sections(redis, **COUNTED))
    for body, fault in (
        (WHOLE, ""),
        (chat(max_tokens=5, stream_options={"include_usage": True}), ""),
        (chat(max_tokens=5), ""),
        (WHOLE, "status=400"),
        (chat(), "reset"),
        (chat(max_tokens=30), "die_after=4"),
    ):
        await stage.ask(proxy, body, headers=[*KEY, ("X-Emulate-Fault", fault)])
        await comes_to(redis, proxy)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(max_tokens=10_000), KEY)
    answer = await client.head()
    await client.text(answer, 3)
    assert counted(redis)[1] == 1
    client.leave()
    await comes_to(redis, proxy)
    # And those that leave as soon as they have asked, while Redis is being asked, or in whatever follows.
    for number in range(60):
        client = await stage.client(proxy)
        await client.send("POST", CHAT, chat(max_tokens=1000), KEY)
        await asyncio.sleep(number / 20_000)
        client.leave(reset=bool(number % 2))
    await comes_to(redis, proxy)


async def test_whoever_leaves_while_redis_is_asked_leaves_nothing(stage: Stage, redis: RedisServer) -> None:
    engine = await stage.backend()
    async with DelayedPort(redis.port) as slow:
        values = sections(redis, **COUNTED)
        values["limits"] = {"store": f"redis://127.0.0.1:{slow.port}", "store_timeout": "1s"}
        proxy = await stage.proxy(engine, **values)
        assert (await stage.ask(proxy, WHOLE, headers=KEY)).status == 200
        await comes_to(redis, proxy)
        before, slow.delay_s = counted(redis), 0.2
        clients = [await stage.client(proxy) for _ in range(20)]
        for client in clients:
            await client.send("POST", CHAT, WHOLE, KEY)
        await until(lambda: proxy._exchanges() == 20, "twenty that wait for Redis")
        for client in clients:
            client.leave(reset=True)
        await proxy.without_clients()
        await until(lambda: counted(redis) == before, "what was taken, back")
        assert proxy.handler.limiter.usage.view()["dev"]["in_flight"] == 0
        slow.delay_s = 0.0


async def test_traffic_goes_on_while_redis_is_frozen_dead_and_new(stage: Stage, redis: RedisServer) -> None:
    """Nobody waits for it, nobody is refused who may pass, and in the end the account is right."""
    proxy = await stage.proxy(await stage.backend(), **sections(redis, requests_per_minute=1_000_000, **COUNTED))
    store = proxy.handler.limiter.store
    statuses: list[int] = []
    over = False

    async def load() -> None:
        client = await stage.client(proxy)
        while not over:
            answer = await client.ask("POST", CHAT, WHOLE, KEY)
            statuses.append(answer.status)

    async def more(what: str) -> None:
        wanted = len(statuses) + 50
        await until(lambda: len(statuses) >= wanted, f"answers while {what}")

    loads = [asyncio.ensure_future(load()) for _ in range(5)]
    await more("it is well")
    redis.freeze()
    await until(lambda: not store.connected, "the loss")
    await more("it is frozen")
    redis.resume()
    await until(lambda: store.connected, "a link to Redis")
    await more("it is back")
    redis.kill()
    await until(lambda: not store.connected, "the loss")
    await more("it is dead")
    redis.start()
    await until(lambda: store.connected, "a link to Redis")
    await more("it is new")
    over = True
    await asyncio.gather(*loads)
    assert set(statuses) == {200}
    assert proxy.metric("llmproxy_limit_decisions_total", by="local") >= 50
    assert proxy.metric("llmproxy_limit_store_up") == 1
    await until(lambda: counted(redis)[1] == 0, "no places held")


@pytest.mark.parametrize(("on_failure", "expected"), [("allow", {200}), ("deny", {503})])
async def test_what_is_done_without_redis_is_a_choice(
    stage: Stage, redis: RedisServer, on_failure: str, expected: set[int]
) -> None:
    values = sections(redis, requests_per_minute=2)
    values["limits"]["on_store_failure"] = on_failure
    proxy = await stage.proxy(await stage.backend(), **values)
    assert (await stage.ask(proxy, WHOLE, headers=KEY)).status == 200
    redis.kill()
    await until(lambda: not proxy.handler.limiter.store.connected, "the loss")
    answers = [await stage.ask(proxy, WHOLE, headers=KEY) for _ in range(5)]
    assert {answer.status for answer in answers} == expected
    if on_failure == "deny":
        assert answers[0].json["error"]["code"] == "limits_unavailable"
        assert answers[0].header("retry-after") == "1"


# -- several processes -------------------------------------------------------------------------------------------------

BURST, A_MINUTE = 96, 600


async def test_four_proxies_enforce_one_limit(stage: Stage, redis: RedisServer, tmp_path: Path) -> None:
    """Each is asked for far more than all of them may pass together: what passes is burst + rate * t, to within one, by
    Redis's own clock."""
    engine = await stage.backend()
    quota = {"requests_per_minute": A_MINUTE, "burst": {"requests": BURST}}
    pools = {"main": {"backends": [{"url": engine.url}]}}
    path = tmp_path / "proxy.yaml"
    path.write_text(json.dumps(settings(pools, None, **sections(redis, **quota))))
    clock = redis.client()

    def redis_ms() -> float:
        seconds, micros = clock.time()
        return float(seconds) * 1000 + float(micros) / 1000

    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(ServingProcess(str(path))) for _ in range(4)]
        for proxy in proxies:
            await proxy.ready()
        clients = [await Client.open(proxy.port) for proxy in proxies for _ in range(4)]
        began = redis_ms()

        async def ask(client: Client) -> int:
            return (await client.ask("POST", CHAT, WHOLE, KEY)).status

        async def take(client: Client) -> None:
            for _ in range(BURST // len(clients)):
                assert await ask(client) == 200

        # All of it first: a full bucket would gain nothing while this machine takes its time to ask on.
        await asyncio.gather(*(take(client) for client in clients))
        began_at_last = redis_ms()
        passed = refused = 0
        ends_at = time.monotonic() + 2.0

        async def hammer(client: Client) -> None:
            nonlocal passed, refused
            while time.monotonic() < ends_at:
                status = await ask(client)
                passed += status == 200
                refused += status == 429
                assert status in (200, 429)

        await asyncio.gather(*(hammer(client) for client in clients))
        remaining = int(clock.get("{llmproxy}:t:dev:rpm").split(b":")[0])
        last_ms = int(clock.get("{llmproxy}:t:dev:rpm").split(b":")[2])
        for client in clients:
            client.leave()
    least, most = (A_MINUTE * (last_ms - start) / 60_000 for start in (began_at_last, began))
    assert least - 2 <= passed + remaining <= most + 1
    assert refused > passed
