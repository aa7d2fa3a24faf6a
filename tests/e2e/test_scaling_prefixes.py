"""What replicas have in their caches: who has sessions is not the one that goes, and a new one is given what is hot."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy.control.actuators.engine_kinds import ProcessOptions
from llmproxy.control.actuators.process import ProcessActuator
from llmproxy.control.reload import Trigger
from llmproxy.control.scaling.fleet import Stage as Life
from tests.e2e.test_scaling import pids, pool, serve, serving
from tests.harness.proxy import config_of, settings
from tests.harness.stage import Stage, chat


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder for engines, of which none is left in the end."""
    folder = tmp_path / "engines"
    yield folder
    last = ProcessActuator("main", ProcessOptions("none", folder, stop_timeout_s=1.0, on_exit_stop=True))
    await last.start()
    await last.stop()


async def test_the_replica_that_has_a_session_is_not_the_one_that_goes(
    ground: Path, stage: Stage, tmp_path: Path
) -> None:
    sticky = pool(ground, min=1, behavior={"down": {"window": "0s"}}) | {"policy": "session_affinity"}
    proxy = await serve(stage, tmp_path, sticky)
    scaling = proxy.app.autoscaling.all
    await serving(proxy, 1)
    scaling.event("main", "ops", "launch", replicas=3, for_s=600)
    await serving(proxy, 3)
    fleet = scaling.scalers["main"].parts.fleet
    youngest = fleet.at(Life.SERVING)[-1].id
    for number in range(200):
        headers = [("X-Session-ID", f"session {number}")]
        answer = await stage.ask(proxy, chat(stream=False), headers=headers)
        if answer.header("x-llmproxy-backend") == youngest:
            break
    # All others' sessions are over.
    policy = proxy.pool().routing
    for backend in proxy.pool().backends:
        if backend.id != youngest:
            policy.forget(backend)
    shown = {row["id"]: row["sessions"] for row in scaling.view("main")["replicas"]}
    assert {id for id, count in shown.items() if count} == {youngest}
    scaling.clear_events("main", "ops", "")
    await serving(proxy, 1)
    assert [one.id for one in fleet.at(Life.SERVING)] == [youngest]
    body = {"model": "emulated", "input": "hello", "max_output_tokens": 3}
    assert (await stage.ask(proxy, body, "/v1/responses")).status == 200
    [row] = scaling.view("main")["replicas"]
    assert row["sessions"] == shown[youngest] + 1, "a stored answer keeps it as well"
    again = await stage.ask(proxy, chat(stream=False), headers=headers)
    assert again.header("x-llmproxy-backend") == youngest


async def test_a_new_replica_has_computed_what_most_prompts_begin_with(
    ground: Path, stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    proxy = await serve(stage, tmp_path, pool(ground, min=1, warm_up={"hottest": 4}))
    await serving(proxy, 1)
    [first] = pids(ground)
    system = {"role": "system", "content": "You are the assistant of a large library. " * 200}

    def prompt(number: int) -> dict[str, Any]:
        return chat(stream=False, messages=[system, {"role": "user", "content": f"{number}: what is new?"}])

    hot = proxy.handler.hot["main"]
    for number in range(100):
        assert (await stage.ask(proxy, prompt(number))).status == 200
        if hot.hottest(4):
            break
    proxy.app.autoscaling.all.event("main", "ops", "launch", replicas=2, for_s=600)
    await serving(proxy, 2)
    for number in range(1000, 1100):
        answer = await stage.ask(proxy, prompt(number))
        if answer.header("x-llmproxy-backend") != first:
            break
    else:
        pytest.fail("the new replica got no request")
    # The first request it ever got from a client.
    assert answer.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 1000
    said = caplog.text + json.dumps(await proxy.log()) + json.dumps(proxy.app.autoscaling.all.view("main"))
    assert "large library" not in said


async def test_what_was_learned_of_prompts_is_dropped_when_nobody_wants_it(
    ground: Path, stage: Stage, tmp_path: Path
) -> None:
    def values(**scaling: Any) -> dict[str, Any]:
        return settings({"main": pool(ground, **scaling)}, tmp_path / "access.jsonl")

    written = values()
    proxy = await stage.serve(written, healthy=False, load=lambda: config_of(written))
    assert proxy.handler.hot == {}
    for hottest, known in ((4, True), (8, True), (0, False)):
        before = proxy.handler.hot.get("main")
        written = values(warm_up={"hottest": hottest})
        assert (await proxy.app.reloader.reload(Trigger.ADMIN)).ok
        assert ("main" in proxy.handler.hot) == known
        assert before is None or not known or proxy.handler.hot["main"] is before
