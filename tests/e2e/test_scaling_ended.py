"""A reload after which a pool is scaled no more: what runs at its engines finishes before they end."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llmproxy.config.model import Config
from llmproxy.control.actuators import processes
from llmproxy.control.reload import Trigger
from tests.e2e.test_scaling import ENGINE, pids, pool, serving
from tests.harness.client import Answer, Client
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until


class Left:
    """A pool of one engine, scaled until a moment ago, and a stream there that has begun."""

    def __init__(
        self, proxy: Proxy, pid: int, client: Client, answer: Answer, back: Callable[[], Awaitable[None]]
    ) -> None:
        self.proxy = proxy
        self.pid = pid
        self.client = client
        self.answer = answer
        self.back = back
        """Has the pool scaled again."""

    def has_ended(self) -> bool:
        return processes.started_ticks(self.pid) is None


@pytest.fixture
async def left(stage: Stage, tmp_path: Path) -> Left:
    folder, other = tmp_path / "engines", await stage.backend()
    # It cuts what it is at when it is told to end.
    actuator = {"command": ENGINE.replace("--shutdown-timeout 5", "--shutdown-timeout 0"), "on_exit": "stop"}
    values: dict[str, Any] = settings({"main": pool(folder, min=1, actuator=actuator)}, None)
    proxy = await stage.serve(values, healthy=False, load=lambda: Config.model_validate(values))
    await serving(proxy, 1)
    [pid] = pids(folder).values()
    client, answer = await stage.streaming(proxy, chat(max_tokens=2000))
    [engine] = proxy.pool().backends
    scaled, values["pools"]["main"] = values["pools"]["main"], {"backends": [{"url": other.url, "id": "other"}]}
    await proxy.app.reloader.reload(Trigger.ADMIN)
    assert [one.id for one in proxy.pool().backends] == ["other"]
    assert engine.load.in_flight == 1, "it is at it still"

    async def back() -> None:
        values["pools"]["main"] = scaled
        await proxy.app.reloader.reload(Trigger.ADMIN)

    return Left(proxy, pid, client, answer, back)


async def test_a_stream_there_finishes_before_its_engine_ends(left: Left) -> None:
    await left.client.rest(left.answer)
    assert left.answer.events[-1] == "[DONE]"
    await until(left.has_ended, "the engine's end")


async def test_scaled_again_meanwhile_the_pool_has_its_engine_back(left: Left, stage: Stage) -> None:
    await left.back()
    await serving(left.proxy, 1)
    assert (await stage.ask(left.proxy, chat(stream=False))).status == 200
    assert not left.has_ended()
    await left.client.text(left.answer)
    assert left.proxy.metric("llmproxy_scaling_starts_total", result="ok") == 1, "the same one"


async def test_a_proxy_that_ends_waits_no_longer_for_it(left: Left) -> None:
    assert not left.has_ended()
    await left.proxy.app.stop(0.0)
    assert left.has_ended()
