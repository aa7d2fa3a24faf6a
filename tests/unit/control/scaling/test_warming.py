"""What a new replica is given to compute before it serves, over real connections; and that none of it holds it back."""

import asyncio
import json
import logging
import random
import time
from typing import Any

import pytest

from llmproxy.config.model import PoolConfig
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.scaling.bring_up import BringUp
from llmproxy.control.scaling.terms import Terms
from llmproxy.core.backend import BackendSpec
from tests.harness.scripted import Scripted, Turn
from tests.unit.control.scaling.test_pool_scaler import Scene

SETTINGS = PoolConfig.model_validate({"backends": ["http://h"]})
PROMPTS: list[dict[str, Any]] = [
    {"messages": [], "max_completion_tokens": 9, "stream": True, "stream_options": {"include_usage": True}},
    {"prompt": "a"},
    {"prompt": "b"},
]


async def warmed(script: Any, within_s: float) -> list[tuple[str, dict[str, Any]]]:
    """What a replica that answers as `script` says was asked."""
    asked: list[tuple[str, dict[str, Any]]] = []

    async def noted(turn: Turn) -> None:
        asked.append((turn.line, json.loads(turn.body)))
        await script(turn, len(asked))

    resolver = Resolver(clock=time.monotonic, rng=random.Random(1))
    async with Scripted(noted) as engine, ProbeClient(resolver) as client:
        spec = BackendSpec("new", engine.url, host="127.0.0.1", port=engine.port)
        await BringUp(client).warm(spec, SETTINGS, PROMPTS, within_s)
    return asked


async def test_each_for_one_token_and_one_that_fails_costs_itself() -> None:
    async def script(turn: Turn, number: int) -> None:
        if number == 2:
            turn.reset()
        else:
            await turn.answer(b"{}", status="200 OK" if number == 3 else "404 Not Found")

    asked = await warmed(script, 30.0)
    assert [line.split()[1] for line, _ in asked] == ["/v1/chat/completions", "/v1/completions", "/v1/completions"]
    assert asked[0][1] == {"messages": [], "max_tokens": 1, "stream": False}
    assert [body.get("prompt") for _, body in asked] == [None, "a", "b"]


async def test_one_that_is_warmed_when_its_start_time_is_over_is_not_given_up() -> None:
    scene, warm = Scene(), asyncio.Event()

    async def slowly(spec: Any, settings: Any, prompts: Any, within_s: float) -> None:
        await warm.wait()

    scene.engines.warm = slowly  # type: ignore[method-assign]
    scene.parts.lives.terms = Terms(replace_after_s=1e6, prompts=({"prompt": "a"},))
    scene.wish.replicas = 1
    await scene.rounds()
    assert scene.lives == {"warming": 1}
    await scene.rounds(4, scene.parts.times.limit_s)
    assert scene.lives == {"warming": 1}
    warm.set()
    await scene.rounds()
    assert scene.lives == {"serving": 1}
    assert scene.world.made == 1


async def test_one_that_never_answers_is_left_in_time() -> None:
    async def script(turn: Turn, number: int) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(30.0):
        asked = await warmed(script, 0.5)
    assert len(asked) < len(PROMPTS)


async def test_nothing_that_goes_wrong_with_a_prompt_stops_it_or_is_told_with_the_prompt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[str] = []

    class Broken:
        async def get(self, spec: Any, key: Any, path: str, *rest: Any, body: dict[str, Any]) -> int:
            asked.append(path)
            raise RuntimeError(f"cannot send {body}")

    spec = BackendSpec("new", "http://127.0.0.1:1", host="127.0.0.1", port=1)
    with caplog.at_level(logging.INFO):
        await BringUp(Broken()).warm(spec, SETTINGS, [{"prompt": "secret"}] * 2, 30.0)  # type: ignore[arg-type]
    assert len(asked) == 2
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
