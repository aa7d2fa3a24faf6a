"""Proxies that scale one pool together: real Redis, real webhook receiver, emulated engines."""

import asyncio
import importlib.util
import json
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from llmproxy.control.scaling.fleet import Stage as Life
from tests.harness.load import Load
from tests.harness.processes import ServingProcess
from tests.harness.proxy import Proxy, settings
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)

SECRET = "a shared secret"
LOCK = "llmproxy:scaling:{main}:leader"
RECEIVER = Path(__file__).parents[2] / "config" / "actuator-receiver.py"


def reference() -> Any:
    spec = importlib.util.spec_from_file_location("actuator_receiver_for_proxies", RECEIVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Machines:
    """What the reference receiver scales: the first of these engines that no replica has yet. Each message is noted;
    one that asks for a change with the fence `held` waits for `gate` before it is looked at."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.instances: list[dict[str, Any]] = []
        self.held = 0
        self.gate = threading.Event()
        self.waiting: list[dict[str, Any]] = []
        self.scaled: list[tuple[int, int]] = []
        """Fence and number of each message that counted."""
        self.refused: list[int] = []
        """Fences of those that did not."""
        self._urls = list(urls)
        self._made = 0

    def instances_of(self, pool: str) -> list[dict[str, Any]]:
        return self.instances

    def scale(self, pool: str, tiers: dict[str, int], leaving: list[str]) -> None:
        [replicas] = tiers.values()
        self.instances = [one for one in self.instances if one["id"] not in leaving][:replicas]
        while len(self.instances) < replicas:
            taken = {one["url"] for one in self.instances}
            self._made += 1
            url = next(url for url in self._urls if url not in taken)
            self.instances.append({"id": f"{pool}-{self._made}", "url": url})

    @property
    def ids(self) -> list[str]:
        return [one["id"] for one in self.instances]


class Site:
    """A Redis, a receiver, and proxies over them."""

    def __init__(self, stage: Stage, redis: RedisServer, machines: Machines, url: str, folder: Path) -> None:
        self.stage, self.redis, self.machines = stage, redis, machines
        self._url, self._folder = url, folder
        self._made = 0

    def values(self, **scaling: Any) -> dict[str, Any]:
        self._made += 1
        actuator = {"kind": "webhook", "url": self._url, "secret": SECRET}
        quiet = [{"steps": {"signal": "queue_depth", "table": {0: 0}}}]
        whole = {"max": 3, "interval": "0.2s", "redis": self.redis.url, "actuator": actuator, "policies": quiet}
        pool = {
            "scaling": whole | {"behavior": {"down": {"window": "0s"}}, "drain": "30s"} | scaling,
            "queue": {"wait": "30s"},
            "health": {"slow_start": "0s"},
            # Engines whose gauges nobody reads: what runs there is known to those who sent it alone.
            "signals": {"interval": "0s"},
        }
        return settings({"main": pool}, self._folder / f"access-{self._made}.jsonl")

    async def proxy(self, **scaling: Any) -> Proxy:
        return await self.stage.serve(self.values(**scaling), healthy=False)

    async def two(self, **scaling: Any) -> tuple[Proxy, Proxy]:
        """The first leads."""
        leader = await self.proxy(**scaling)
        await until(lambda: leads(leader), "a leader")
        return leader, await self.proxy(**scaling)


def scaler(proxy: Proxy) -> Any:
    return proxy.app.autoscaling.all.scalers["main"]


def leads(proxy: Proxy) -> bool:
    return scaler(proxy).token is not None


def lives(proxy: Proxy) -> dict[str, int]:
    fleet = scaler(proxy).parts.fleet
    return {stage.value: count for stage in Life if (count := fleet.count(stage))}


def stages(proxy: Proxy) -> dict[str, str]:
    return {one.id: one.stage.value for one in scaler(proxy).parts.fleet.replicas.values()}


async def all_have(wanted: dict[str, int], *proxies: Proxy) -> None:
    def so() -> bool:
        assert [lives(proxy) for proxy in proxies] == [wanted] * len(proxies)
        return all(one.status.value in ("healthy", "draining") for proxy in proxies for one in proxy.pool().backends)

    await until(so, f"{wanted} at every proxy", 30.0)


async def admin(url: Proxy | str, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    base = url if isinstance(url, str) else url.admin_url
    async with aiohttp.ClientSession() as http, http.request(method, base + path, json=body) as answer:
        return answer.status, await answer.json()


async def event(proxy: Proxy, replicas: int) -> None:
    body = {"replicas": replicas, "for": "1h", "why": "the test"}
    assert (await admin(proxy, "POST", "/admin/scaling/main/event", body))[0] == 201


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def site(stage: Stage, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Site]:
    engines = await stage.backends(4)
    machines = Machines([engine.url for engine in engines])
    module = reference()

    class Guarded(module.Receiver):  # type: ignore[misc, name-defined]
        def receive(self, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
            message = json.loads(body)
            asks = message["action"] == "scale"
            if asks and message["fence"] == machines.held:
                machines.waiting.append(message)
                assert machines.gate.wait(60.0)
            status, answer = super().receive(headers, body)
            if asks and status == 200:
                machines.scaled.append((message["fence"], message["replicas"]))
            elif asks:
                machines.refused.append(message["fence"])
            return status, answer

    server = module.serve(Guarded(SECRET, machines), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    # The one that was killed hears no answer any more.
    server.handle_error = lambda *_: None
    yield Site(stage, redis, machines, f"http://127.0.0.1:{server.server_address[1]}/", tmp_path)
    machines.gate.set()
    await asyncio.to_thread(server.shutdown)
    thread.join()
    server.server_close()


async def test_what_the_leader_lets_go_gets_no_new_work_from_any_proxy(site: Site) -> None:
    leader, follower = await site.two()
    await event(leader, 2)
    await all_have({"serving": 2}, leader, follower)
    # One stream of the follower on each of them.
    streams = [await site.stage.streaming(follower, chat(max_tokens=4000)) for _ in range(2)]
    assert {backend.load.in_flight for backend in follower.pool().backends} == {1}
    before = list(site.machines.instances)
    async with Load(follower.port, clients=4, body=lambda n: chat(stream=bool(n % 2), max_tokens=5)) as load:
        assert (await admin(leader, "DELETE", "/admin/scaling/main/event"))[1]["cleared"] == 1
        await event(leader, 1)
        await all_have({"serving": 1, "draining": 1}, leader, follower)
        [left] = [id for id, stage in stages(follower).items() if stage == "draining"]
        mark = len(load.backends)
        await until(lambda: len(load.backends) > mark + 30, "work without it")
    assert load.backends[mark:].count(left) <= 4, "those that were under way"
    assert load.dropped == []
    assert site.machines.instances == before, "the follower is still at it"
    for client, answer in streams:
        whole = await client.rest(answer)
        assert whole.events[-1] == "[DONE]"
        client.leave()
    await all_have({"serving": 1}, leader, follower)
    assert left not in site.machines.ids


async def test_a_pause_holds_for_every_proxy_and_over_restarts_of_all(site: Site) -> None:
    leader, follower = await site.two(min=1)
    await all_have({"serving": 1}, leader, follower)
    status, answer = await admin(follower, "POST", "/admin/scaling/pause", {"why": "maintenance"})
    assert (status, answer) == (200, {"paused": "*", "told_all_proxies": True})
    await event(follower, 3)
    decisions = scaler(leader).parts.decisions
    await until(lambda: "paused" in decisions.latest.decision.limits, "a decision that is held back")
    assert site.machines.ids == ["main-1"]
    assert (await admin(leader, "GET", "/admin/scaling/main"))[1]["paused"] == "loopback: maintenance"
    await leader.app.stop()
    await follower.app.stop()
    next_one = await site.proxy(min=1)
    await until(lambda: scaler(next_one).parts.decisions.latest is not None and leads(next_one), "a new leader")
    assert next_one.metric("llmproxy_scaling_paused", pool="main") == 1
    decisions = scaler(next_one).parts.decisions
    await until(lambda: "paused" in decisions.latest.decision.limits, "a decision that is held back")
    await all_have({"serving": 1}, next_one)
    assert (await admin(next_one, "POST", "/admin/scaling/resume", {"pool": "main"}))[0] == 200
    assert next_one.metric("llmproxy_scaling_paused", pool="main") == 1, "everywhere is more than one pool"
    assert (await admin(next_one, "POST", "/admin/scaling/resume"))[0] == 200
    await all_have({"serving": 3}, next_one)


async def test_a_pause_while_redis_is_away_holds_here_and_for_the_others_later(site: Site, redis: RedisServer) -> None:
    leader, follower = await site.two(min=1)
    await all_have({"serving": 1}, leader, follower)
    redis.kill()
    status, answer = await admin(follower, "POST", "/admin/scaling/pause", {"why": "fire"})
    assert (status, answer["told_all_proxies"]) == (202, False)
    assert follower.metric("llmproxy_scaling_paused", pool="main") == 1
    redis.start()
    await until(lambda: leader.metric("llmproxy_scaling_paused", pool="main") == 1, "the others know", 20.0)


async def test_requests_that_wait_at_another_proxy_start_one(site: Site) -> None:
    leader, follower = await site.two(min=0)
    await until(lambda: scaler(leader).parts.decisions.latest is not None, "a decision that nobody is needed")
    assert site.machines.ids == []
    answer = await site.stage.ask(follower, chat(stream=False))
    assert answer.status == 200
    assert {fence for fence, _ in site.machines.scaled} == {scaler(leader).token}
    for _ in range(3):
        assert (await site.stage.ask(follower, chat(stream=False))).status == 200
    counted = scaler(leader).parts.meter
    await until(lambda: counted._samples[-1].arrived >= 3, "the follower's requests among the leader's signals")


async def test_a_replica_at_rest_is_at_rest_for_every_proxy(site: Site) -> None:
    leader, follower = await site.two(min=1, warm_pool={"size": 1, "kind": "sleep"})
    await all_have({"serving": 1, "standby": 1}, leader, follower)
    [resting] = [id for id, stage in stages(leader).items() if stage == "standby"]
    await until(lambda: [one.asleep for one in scaler(leader).parts.fleet.at(Life.STANDBY)] == [True], "it sleeps")
    async with Load(follower.port, clients=4) as load:
        await until(lambda: len(load.backends) > 20, "work")
    assert load.dropped == []
    assert resting not in load.backends
    # Whoever takes the lead does not have to find out who sleeps, and wakes it.
    await leader.app.stop()
    await until(lambda: leads(follower), "the next leader")
    assert stages(follower)[resting] == "standby"
    await event(follower, 2)
    await until(lambda: resting in [one.id for one in follower.pool().backends], "it serves")
    third = await site.proxy(min=1, warm_pool={"size": 1, "kind": "sleep"})
    await until(lambda: lives(third) == lives(follower), "a proxy that has just begun knows it too", 20.0)


async def test_an_instance_that_registers_with_one_proxy_is_known_to_all(site: Site) -> None:
    leader, follower = await site.two(min=1)
    await all_have({"serving": 1}, leader, follower)
    engine = await site.stage.backend()
    body = {"url": engine.url, "id": "fresh", "ttl": "60s"}
    assert (await admin(follower, "POST", "/admin/pools/main/backends", body))[0] == 201
    for proxy in (leader, follower):
        await until(lambda proxy=proxy: "fresh" in [one.id for one in proxy.pool().backends], "it is there")
    live = leader.backend("fresh")
    # It says so again, to the other one; and an instance may fall silent everywhere at once.
    assert (await admin(leader, "POST", "/admin/pools/main/backends", body | {"ttl": "2s"}))[0] == 201
    assert leader.backend("fresh") is live
    for proxy in (leader, follower):
        await until(lambda proxy=proxy: "fresh" not in [one.id for one in proxy.pool().backends], "it left")
    assert (await admin(leader, "POST", "/admin/pools/main/backends", body))[0] == 201
    await until(lambda: "fresh" in [one.id for one in follower.pool().backends], "it is back")
    assert (await admin(follower, "DELETE", "/admin/pools/main/backends/fresh"))[0] == 200
    await until(lambda: "fresh" not in [one.id for one in leader.pool().backends], "it was taken out everywhere")


async def test_a_leader_killed_in_the_middle_of_acting_is_not_heard_any_more(
    site: Site, redis: RedisServer, tmp_path: Path
) -> None:
    """Its message is on the way when it dies, and comes in after the next leader has acted."""
    file = tmp_path / "first.yaml"
    file.write_text(yaml.safe_dump(site.values(min=1)))
    async with ServingProcess(str(file)) as first:
        await until(lambda: site.machines.ids == ["main-1"], "its first replica")
        [(fence, _)] = set(site.machines.scaled)
        second = await site.proxy(min=1)
        await all_have({"serving": 1}, second)
        assert not leads(second)
        site.machines.held = fence
        body = {"replicas": 3, "for": "1h", "why": "launch"}
        assert (await admin(first.admin_url, "POST", "/admin/scaling/main/event", body))[0] == 201
        await until(lambda: site.machines.waiting, "its message")
        assert site.machines.waiting[0]["replicas"] == 3
        first.signal(signal.SIGKILL)
        await first.ends()
        assert not leads(second)
        assert scaler(second).desired is None, "while the lock lasts nobody decides for good"
        # So that the test need not wait until the lock runs out by itself.
        assert redis.client().pexpire(LOCK, 1) == 1
        await until(lambda: leads(second), "the next leader", 20.0)
    assert (await admin(second, "DELETE", "/admin/scaling/main/event"))[1]["cleared"] == 1
    await event(second, 2)
    await all_have({"serving": 2}, second)
    assert site.machines.scaled[-1] == (scaler(second).token, 2)
    site.machines.gate.set()
    await until(lambda: site.machines.refused, "the dead one's message")
    assert site.machines.refused == [fence]
    assert len(site.machines.ids) == 2
    assert {newer for newer, _ in site.machines.scaled[1:]} == {scaler(second).token}
