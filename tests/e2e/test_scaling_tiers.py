"""Tiers of capacity for real: a prompt that no small engine takes starts a big one, and is answered by it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy.control.actuators.engine_kinds import ProcessOptions
from llmproxy.control.actuators.process import ProcessActuator
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

ENGINE = f"{sys.executable} -m llmproxy.emulator --port {{port}} --startup 0.3 --ttft 5 --itl 2 --prefill 0"
TIERS = [
    {
        "name": "small",
        "gpu": "A10",
        "prompt_tokens_max": "1k",
        "price_per_hour": 1,
        "command": f"{ENGINE} --max-model-len 1500 --name {{tier}}-{{gpu}}",
    },
    {"name": "big", "gpu": "2xA100", "worth": 4, "price_per_hour": 7, "spot": True, "env": {"SIZE": "big"}},
]
LONG = [{"role": "user", "content": "many words " * 1000}]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder for engines, of which none is left in the end."""
    folder = tmp_path / "engines"
    yield folder
    last = ProcessActuator("main", ProcessOptions("none", folder, stop_timeout_s=1.0, on_exit_stop=True))
    await last.start()
    await last.stop()


async def serve(ground: Path, stage: Stage, tmp_path: Path, **scaling: Any) -> Proxy:
    command = f"{ENGINE} --name {{tier}}-{{gpu}}"
    actuator = {"kind": "process", "command": command, "directory": str(ground)}
    found = {"min": 1, "max": 3, "interval": "0.2s", "tiers_of_capacity": TIERS, "actuator": actuator} | scaling
    pools = {"main": {"scaling": found, "queue": {"wait": "60s"}, "health": {"slow_start": "0s"}}}
    return await stage.serve(settings(pools, tmp_path / "access.jsonl"), healthy=False)


def present(ground: Path) -> list[str]:
    return sorted(row["tier"] for row in json.loads((ground / "replicas.json").read_text())["replicas"])


async def test_a_long_prompt_brings_a_big_engine_and_is_answered_by_it(
    ground: Path, stage: Stage, tmp_path: Path
) -> None:
    proxy = await serve(ground, stage, tmp_path)
    await until(lambda: len(proxy.pool().backends) == 1, "a small one", 30.0)
    short, long = await asyncio.gather(
        stage.ask(proxy, chat()), stage.ask(proxy, chat(stream=False, messages=LONG), id="long")
    )
    assert (short.status, long.status) == (200, 200)
    assert short.header("x-emulator") == "small-A10"
    assert long.header("x-emulator") == "big-2xA100"
    scaling = proxy.app.autoscaling.all
    assert proxy.metric("llmproxy_scaling_tier_requests_total", pool="main", tier="big") == 1
    decisions = scaling.scalers["main"].parts.decisions.shown()
    [brought] = [one for one in decisions if one["replicas"] > one["before"] and one["policy"] == "tiers"]
    assert brought["tiers"] == {"small": 1, "big": 1}
    by_tier = {one["tier"]: one for one in scaling.view("main")["tiers"]}
    assert by_tier["big"]["price_per_hour"] == 7
    assert by_tier["big"]["serving"] == 1
    assert {backend.spec.tier: backend.weight for backend in proxy.pool().backends}["big"] == 4
    assert "big" in present(ground)

    def counted() -> bool:
        return proxy.metric("llmproxy_tier_cost_total", pool="main", tier="big", market="spot") > 0

    await until(counted, "its cost")


async def test_from_zero_a_long_prompt_starts_the_big_one_alone(ground: Path, stage: Stage, tmp_path: Path) -> None:
    proxy = await serve(ground, stage, tmp_path, min=0)
    answer = await stage.ask(proxy, chat(stream=False, messages=LONG))
    assert answer.status == 200
    assert present(ground) == ["big"]


async def test_a_new_proxy_takes_them_over_by_tier(ground: Path, stage: Stage, tmp_path: Path) -> None:
    first = await serve(ground, stage, tmp_path)
    assert (await stage.ask(first, chat(stream=False, messages=LONG))).status == 200
    await first.app.stop()
    assert "big" in present(ground)
    second = await serve(ground, stage, tmp_path)

    def taken_over() -> bool:
        return "big" in {backend.spec.tier for backend in second.pool().backends}

    await until(taken_over, "the big one", 30.0)
    assert second.metric("llmproxy_scaling_starts_total", pool="main", result="ok") == 0


async def test_a_tier_that_does_not_start_does_not_keep_the_others(ground: Path, stage: Stage, tmp_path: Path) -> None:
    ends_at_once = f"{sys.executable} -c pass --port {{port}}"
    tiers = [{"name": "spot", "spot": True, "command": ends_at_once}, {"name": "steady"}]
    proxy = await serve(ground, stage, tmp_path, tiers_of_capacity=tiers)
    assert (await stage.ask(proxy, chat(stream=False))).header("x-emulator") == "steady-"
    assert present(ground) == ["steady"]
