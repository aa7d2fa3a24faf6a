"""Prompt tokens are estimated from bytes. Beside what `/tokenize` counts, the error shrinks as `usage` comes in."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

from tests.harness.stage import MODEL, Stage
from tests.harness.token_estimates import KINDS, errors

PROMPTS = 60


@pytest.mark.parametrize("kind", KINDS)
async def test_the_error_shrinks_with_usage(stage: Stage, kind: Callable[..., str]) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool={"policy": "expected_cost"}, server={"debug_headers": True})

    async def count(messages: list[dict[str, Any]]) -> int:
        answer = await stage.ask(engine, {"model": MODEL, "messages": messages}, "/tokenize")
        return int(answer.json["count"])

    found = await errors(stage, proxy, MODEL, count, kind, PROMPTS)
    # Its prior is four bytes a token, which is what the emulator's tokens of ASCII are.
    assert fmean(found[-20:]) < 0.15
    assert fmean(found[-20:]) < max(0.4 * fmean(found[:5]), 0.05)


async def test_counting_a_prompt_is_not_computing_it(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool={"policy": "expected_cost"}, server={"debug_headers": True})
    messages = [{"role": "user", "content": "word " * 3000}]
    counted = await stage.ask(proxy, {"model": MODEL, "messages": messages}, "/tokenize")
    assert counted.json["count"] > 3000
    body = {"model": MODEL, "messages": messages, "max_tokens": 1}
    asked = await stage.ask(proxy, body, headers=[("X-LLMProxy-Debug", "route")])
    assert '"cached_tokens":0' in (asked.header("x-llmproxy-route") or "").replace(" ", "")
