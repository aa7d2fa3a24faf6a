"""Tiers of capacity over two proxies: real Redis, the reference receiver of the webhook, emulated engines."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy.control.scaling.fleet import Stage as Life
from tests.e2e.test_scaling_proxies import SECRET, leads, reference, scaler
from tests.harness.proxy import Proxy, settings
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

LONG = [{"role": "user", "content": "many words " * 1000}]


class Market:
    """What the receiver scales: engines by tier; of those in `empty` there are none to be had."""

    def __init__(self, urls: dict[str, list[str]]) -> None:
        self.instances: list[dict[str, Any]] = []
        self.empty: set[str] = set()
        self._urls = urls
        self._made = 0

    def instances_of(self, pool: str) -> list[dict[str, Any]]:
        return self.instances

    def scale(self, pool: str, tiers: dict[str, int], leaving: list[str]) -> None:
        self.instances = [one for one in self.instances if one["id"] not in leaving]
        for tier, wanted in tiers.items():
            there = [one["url"] for one in self.instances if one["tier"] == tier]
            free = [url for url in self._urls[tier] if url not in there]
            for url in free[: 0 if tier in self.empty else max(wanted - len(there), 0)]:
                self._made += 1
                self.instances.append({"id": f"{tier}-{self._made}", "url": url, "tier": tier})


class Site:
    def __init__(self, stage: Stage, market: Market, redis: RedisServer, url: str, folder: Path) -> None:
        self.stage, self.market = stage, market
        self._redis, self._url, self._folder = redis, url, folder

    async def two(self, tiers: list[dict[str, Any]]) -> tuple[Proxy, Proxy]:
        """The first leads."""
        found = []
        for number in range(2):
            scaling = {
                "max": 4,
                "interval": "0.2s",
                "redis": self._redis.url,
                "policies": [{"steps": {"signal": "queue_depth", "table": {0: 0}}}],
                "tiers_of_capacity": tiers,
                "actuator": {"kind": "webhook", "url": self._url, "secret": SECRET},
            }
            pool = {"scaling": scaling, "queue": {"wait": "30s"}, "health": {"slow_start": "0s"}}
            values = settings({"main": pool}, self._folder / f"access-{number}.jsonl")
            proxy = await self.stage.serve(values, healthy=False)
            found.append(proxy)
            await until(lambda: leads(found[0]), "a leader")
        return found[0], found[1]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def site(stage: Stage, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Site]:
    small = [await stage.backend(name="small", max_model_len=1500) for _ in range(2)]
    big = [await stage.backend(name="big") for _ in range(2)]
    market = Market({"small": [one.url for one in small], "big": [one.url for one in big]})
    module = reference()

    class Selling(module.Receiver):  # type: ignore[misc, name-defined]
        def receive(self, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
            status, answer = super().receive(headers, body)
            return status, {**answer, "unavailable": sorted(market.empty)}

    server = module.serve(Selling(SECRET, market), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Site(stage, market, redis, f"http://127.0.0.1:{server.server_address[1]}/", tmp_path)
    await asyncio.to_thread(server.shutdown)
    thread.join()
    server.server_close()


def serving(proxy: Proxy) -> dict[str, int]:
    fleet = scaler(proxy).parts.fleet
    return {tier: count for tier in fleet.tiers if (count := fleet.count(Life.SERVING, tier=tier))}


async def both_have(wanted: dict[str, int], *proxies: Proxy) -> None:
    def so() -> bool:
        assert [serving(proxy) for proxy in proxies] == [wanted] * len(proxies)
        return all(one.status.value == "healthy" for proxy in proxies for one in proxy.pool().backends)

    await until(so, f"{wanted} at both", 30.0)


async def test_a_long_prompt_at_the_one_that_follows_brings_a_big_one_for_both(site: Site) -> None:
    leader, follower = await site.two([{"name": "small", "prompt_tokens_max": "1k"}, {"name": "big", "worth": 4}])
    await both_have({"small": 1}, leader, follower)
    long = await site.stage.ask(follower, chat(stream=False, messages=LONG))
    assert (long.status, long.header("x-emulator")) == (200, "big")
    await both_have({"small": 1, "big": 1}, leader, follower)
    assert not leads(follower)
    for proxy in (leader, follower):
        assert {one.spec.tier: one.weight for one in proxy.pool().backends} == {"small": 1.0, "big": 4.0}
        answer = await site.stage.ask(proxy, chat(stream=False, messages=LONG))
        assert answer.header("x-emulator") == "big"


async def test_where_the_first_tier_is_empty_the_second_serves_both(site: Site) -> None:
    site.market.empty = {"small"}
    leader, follower = await site.two([{"name": "small", "spot": True}, {"name": "big"}])
    await both_have({"big": 1}, leader, follower)
    assert scaler(leader).parts.backoff.wait_s(leader.app._clock(), "big") == 0.0
    shown = {row["tier"]: row["starts_fail"] for row in leader.app.autoscaling.all.view("main")["tiers"]}
    assert shown == {"small": True, "big": False}
    for proxy in (leader, follower):
        assert (await site.stage.ask(proxy, chat(stream=False))).header("x-emulator") == "big"
