"""The autoscaler for real: emulated engines as processes of their own, started and stopped while requests run."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llmproxy.control.actuators import processes
from llmproxy.control.actuators.engine_kinds import ProcessOptions
from llmproxy.control.actuators.process import ProcessActuator
from llmproxy.control.scaling.fleet import Stage as Life
from tests.harness.load import Load
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

ENGINE = (
    f"{sys.executable} -m llmproxy.emulator --port {{port}} --startup 0.3 --ttft 5 --itl 2 --prefill 0 "
    "--shutdown-timeout 5"
)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder for engines, of which none is left in the end."""
    folder = tmp_path / "engines"
    yield folder
    options = ProcessOptions("none", folder, stop_timeout_s=1.0, on_exit_stop=True)
    last = ProcessActuator("main", options)
    await last.start()
    await last.stop()


def pool(ground: Path, **scaling: Any) -> dict[str, Any]:
    actuator = {"kind": "process", "command": ENGINE, "directory": str(ground), "on_exit": "keep"}
    actuator |= scaling.pop("actuator", {})
    return {
        "scaling": {"min": 0, "max": 3, "interval": "0.2s", "drain": "20s", "actuator": actuator} | scaling,
        "queue": {"wait": "60s"},
        "health": {"slow_start": "0s"},
    }


UP_AND_DOWN = {
    "max_concurrency": 4,
    "policies": [
        {
            "rules": {
                "up": "in_flight_per_replica >= 4 or queue_depth > 0",
                "down": "in_flight_per_replica < 1",
                "up_period": "1s",
                "down_period": "0.5s",
            }
        }
    ],
    "behavior": {"down": {"window": "0s"}},
}


async def serve(stage: Stage, tmp_path: Path, pools: dict[str, Any], **sections: Any) -> Proxy:
    return await stage.serve(settings({"main": pools}, tmp_path / "access.jsonl", **sections), healthy=False)


def lives(proxy: Proxy) -> dict[str, int]:
    fleet = proxy.app.autoscaling.all.scalers["main"].parts.fleet
    return {stage.value: count for stage in Life if (count := fleet.count(stage))}


def pids(ground: Path) -> dict[str, int]:
    rows = json.loads((ground / "replicas.json").read_text())["replicas"]
    return {row["id"]: row["pid"] for row in rows}


async def serving(proxy: Proxy, count: int) -> None:
    def is_so() -> bool:
        assert lives(proxy) == ({"serving": count} if count else {}), lives(proxy)
        return all(backend.status.value == "healthy" for backend in proxy.pool().backends)

    await until(is_so, f"{count} serving", 30.0)


async def test_from_zero_the_first_request_succeeds(ground: Path, stage: Stage, tmp_path: Path) -> None:
    proxy = await serve(stage, tmp_path, pool(ground), admin={"audit": str(tmp_path / "audit.jsonl")})
    assert proxy.pool().backends == ()
    async with aiohttp.ClientSession() as http, http.get(f"{proxy.admin_url}/readyz") as ready:
        assert ready.status == 200, "or nobody would send it the first request"
    first, second = await asyncio.gather(stage.ask(proxy, chat()), stage.ask(proxy, chat(stream=False)))
    assert (first.status, second.status) == (200, 200)
    assert first.events[-1] == "[DONE]"
    assert lives(proxy) == {"serving": 1}
    scaler = proxy.app.autoscaling.all.scalers["main"]
    newest = scaler.parts.decisions.shown()
    assert [one["policy"] for one in newest if one["replicas"] > one["before"]] == ["activation"]
    assert proxy.metric("llmproxy_scaling_starts_total", pool="main", result="ok") == 1
    [line] = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert (line["who"], line["what"], line["replicas"]) == ("autoscaler", "scale", 1)
    assert "no replica serves" in line["why"]

    def counted() -> bool:
        waited = proxy.metric("llmproxy_scaling_cold_start_requests_total", pool="main", result="waited")
        return waited == 2 and proxy.metric("llmproxy_scaling_changes_total", pool="main", direction="up") == 1

    await until(counted, "both counted as waiting for the first one")
    assert proxy.metric("llmproxy_scaling_change_seconds_total", pool="main", direction="up") > 0.3
    assert proxy.metric("llmproxy_scaling_cold_start_requests_total", pool="main", result="failed") == 0


async def test_up_under_load_and_down_without_a_failed_request(ground: Path, stage: Stage, tmp_path: Path) -> None:
    proxy = await serve(stage, tmp_path, pool(ground, min=1, **UP_AND_DOWN))
    await serving(proxy, 1)
    async with Load(proxy.port, clients=14, body=lambda n: chat(stream=bool(n % 2), max_tokens=60)) as load:
        await serving(proxy, 3)
        answered = load.answered
        await until(lambda: load.answered > answered + 20, "work on three", 30.0)
    assert load.dropped == []
    # The last one drains while it still has something to say.
    client, answer = await stage.streaming(proxy, chat(max_tokens=400))
    await serving(proxy, 1)
    whole = await client.rest(answer)
    assert whole.events[-1] == "[DONE]"
    client.leave()
    assert len(set(load.backends)) == 3
    assert len(pids(ground)) == 1


async def test_a_killed_replica_is_replaced(ground: Path, stage: Stage, tmp_path: Path) -> None:
    proxy = await serve(stage, tmp_path, pool(ground, min=2))
    await serving(proxy, 2)
    async with Load(proxy.port, clients=4, body=lambda n: chat(stream=False, max_tokens=20)) as load:
        await until(lambda: load.answered > 10, "work")
        victim, pid = next(iter(pids(ground).items()))
        os.kill(pid, signal.SIGKILL)

        def replaced() -> bool:
            assert victim not in pids(ground)
            return lives(proxy) == {"serving": 2}

        await until(replaced, "a new one", 30.0)
        answered = load.answered
        await until(lambda: load.answered > answered + 10, "work on the new one")
    assert [one for one in load.dropped if "status 5" not in one and "cut" not in one] == []
    assert len(load.dropped) <= 4, "only what ran on the one that was killed"
    assert proxy.metric("llmproxy_scaling_starts_total", pool="main", result="died") == 1


async def test_a_restarted_proxy_takes_them_over(ground: Path, stage: Stage, tmp_path: Path) -> None:
    first = await serve(stage, tmp_path, pool(ground, min=2))
    await serving(first, 2)
    before = pids(ground)
    await first.app.stop()
    assert all(processes.started_ticks(pid) for pid in before.values())
    second = await serve(stage, tmp_path, pool(ground, min=2))
    await serving(second, 2)
    assert pids(ground) == before
    assert (await stage.ask(second, chat())).status == 200
    assert second.metric("llmproxy_scaling_starts_total", pool="main", result="ok") == 0


async def test_a_hung_replica_is_replaced(ground: Path, stage: Stage, tmp_path: Path) -> None:
    settings_of = pool(ground, min=1, replace_after="1s", actuator={"stop_timeout": "0.5s"})
    settings_of["health"] = {"interval": "0.2s", "timeout": "0.3s"}
    proxy = await serve(stage, tmp_path, settings_of)
    await serving(proxy, 1)
    [(victim, pid)] = pids(ground).items()
    os.kill(pid, signal.SIGSTOP)

    def replaced() -> bool:
        assert victim not in pids(ground)
        return lives(proxy) == {"serving": 1}

    await until(replaced, "a new one", 40.0)
    assert processes.started_ticks(pid) is None


async def test_one_that_somebody_put_to_sleep_is_replaced(ground: Path, stage: Stage, tmp_path: Path) -> None:
    """It counts as serving, and nobody would wake it."""
    settings_of = pool(ground, min=1, replace_after="0.5s")
    settings_of["health"] = {"interval": "0.2s"}
    proxy = await serve(stage, tmp_path, settings_of)
    await serving(proxy, 1)
    [victim] = pids(ground)
    [backend] = proxy.pool().backends
    async with aiohttp.ClientSession() as http, http.post(f"{backend.spec.url}/sleep?level=1") as answer:
        assert answer.status == 200

    def replaced() -> bool:
        assert victim not in pids(ground)
        return lives(proxy) == {"serving": 1}

    await until(replaced, "a new one", 40.0)


async def test_paused_nothing_changes(ground: Path, stage: Stage, tmp_path: Path) -> None:
    proxy = await serve(stage, tmp_path, pool(ground, min=1, max=3))
    await serving(proxy, 1)
    all_scalers = proxy.app.autoscaling.all
    all_scalers.pause("*", "ops", "maintenance")
    all_scalers.event("main", "ops", "launch", replicas=3, for_s=600)
    decisions = all_scalers.scalers["main"].parts.decisions
    await until(lambda: "paused" in decisions.latest.decision.limits, "a decision held back")  # type: ignore[union-attr]
    assert lives(proxy) == {"serving": 1}
    all_scalers.resume("*", "ops", "")
    await serving(proxy, 3)


async def test_standby_is_filled_and_taken_from(ground: Path, stage: Stage, tmp_path: Path) -> None:
    proxy = await serve(stage, tmp_path, pool(ground, min=1, warm_pool={"size": 1, "kind": "standby"}))

    def filled() -> bool:
        return lives(proxy) == {"serving": 1, "standby": 1}

    await until(filled, "a warm pool", 30.0)
    before = set(pids(ground))
    proxy.app.autoscaling.all.event("main", "ops", "launch", replicas=2, for_s=600)
    await until(lambda: lives(proxy) == {"serving": 2, "standby": 1}, "one taken, one made", 30.0)
    assert before < set(pids(ground))
    serving_now = {backend.id for backend in proxy.pool().backends}
    assert serving_now == before


async def is_sleeping(url: str) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/is_sleeping") as answer:
        return bool((await answer.json())["is_sleeping"])


async def test_the_warm_pool_sleeps_and_is_woken(ground: Path, stage: Stage, tmp_path: Path) -> None:
    sleeping = pool(ground, min=1, warm_pool={"size": 1, "kind": "sleep"}, behavior={"down": {"window": "0s"}})
    proxy = await serve(stage, tmp_path, sleeping)
    fleet = proxy.app.autoscaling.all.scalers["main"].parts.fleet

    def asleep() -> list[str]:
        return [one.url for one in fleet.at(Life.STANDBY) if one.asleep]

    async def rests() -> bool:
        return lives(proxy) == {"serving": 1, "standby": 1} and len(asleep()) == 1 and await is_sleeping(asleep()[0])

    await until(rests, "one that sleeps", 30.0)
    [sleeper] = asleep()
    before = set(pids(ground))
    async with Load(proxy.port, clients=4, body=lambda n: chat(stream=bool(n % 2), max_tokens=20)) as load:
        proxy.app.autoscaling.all.event("main", "ops", "launch", replicas=2, for_s=600)
        await until(lambda: sleeper in [backend.spec.url for backend in proxy.pool().backends], "it serves", 30.0)
        assert not await is_sleeping(sleeper)
        assert {backend.id for backend in proxy.pool().backends} == before, "woken, not started"
        woken = next(backend.id for backend in proxy.pool().backends if backend.spec.url == sleeper)
        await until(lambda: woken in load.backends, "work on it", 30.0)
        proxy.app.autoscaling.all.clear_events("main", "ops", "")
        await until(rests, "one that sleeps again", 30.0)
        answered = load.answered
        await until(lambda: load.answered > answered + 10, "work without it", 30.0)
    assert load.dropped == []


async def test_who_was_at_the_only_replica_waits_for_the_next(ground: Path, stage: Stage, tmp_path: Path) -> None:
    one = pool(ground, min=1, max=1, max_concurrency=4)
    proxy = await serve(stage, tmp_path, one)
    await serving(proxy, 1)
    asked = [asyncio.create_task(stage.ask(proxy, chat(stream=False, max_tokens=1000))) for _ in range(3)]
    await until(lambda: proxy.pool().backends[0].load.in_flight == 3, "work there")
    [(victim, pid)] = pids(ground).items()
    os.kill(pid, signal.SIGKILL)
    answers = await asyncio.gather(*asked)
    assert [answer.status for answer in answers] == [200] * 3
    assert {answer.header("x-llmproxy-backend") for answer in answers}.isdisjoint({victim})
