"""The estimate of prompt tokens, beside what the real tokenizer counts of the same messages."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

from tests.engines.asking import KEY_LINE, proxy_over
from tests.engines.vllm_server import MODEL, Engines
from tests.harness.stage import Stage
from tests.harness.token_estimates import KINDS, errors

pytestmark = pytest.mark.engines
PROMPTS = 50
MOST_BYTES = 2500
"""Of JSON. A character of Chinese is six bytes there, and up to three tokens, of which the model takes 2,048."""


@pytest.mark.parametrize("kind", KINDS)
async def test_the_error_shrinks_with_usage(
    up: Engines, stage: Stage, kind: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = up.both[0]
    await server.idle()
    proxy = await proxy_over(stage, server, pool={"policy": "expected_cost"}, server={"debug_headers": True})

    async def count(messages: list[dict[str, Any]]) -> int:
        answer = await stage.ask(server, {"model": MODEL, "messages": messages}, "/tokenize", headers=[KEY_LINE])
        assert answer.status == 200, answer.body
        return int(answer.json["count"])

    found = await errors(stage, proxy, MODEL, count, kind, PROMPTS, MOST_BYTES)
    first, last = fmean(found[:5]), fmean(found[-15:])
    with capsys.disabled():
        print(f"\n{kind.__name__}: off by {first:.1%} at first, {last:.1%} in the end")
    assert last < max(0.5 * first, 0.1)
