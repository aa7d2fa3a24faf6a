"""Chats whose turns share their beginnings go on where their beginning is cached, and the engines count it."""

import pytest

from bench.reality.chats import Outcome, chat
from tests.engines.asking import proxy_over
from tests.engines.vllm_server import KEY, MODEL, Engines
from tests.harness.stage import Stage

pytestmark = pytest.mark.engines


async def test_expected_cost_finds_more_prefixes(up: Engines, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Outcome] = {}
    for policy in ("least_connections", "expected_cost"):
        for server in up.both:
            await server.idle()
            assert (await server.ask("POST", "/reset_prefix_cache")).status == 200
        proxy = await proxy_over(stage, *up.both, pool={"policy": policy})
        # Two turns: with each further one a blind proxy has left more of a chat with both engines.
        found[policy] = await chat(proxy.url, [server.url for server in up.both], KEY, MODEL, chats=20, turns=2)
    with capsys.disabled():
        for policy, outcome in found.items():
            print(f"\n{policy}: {outcome}")
    blind, seeing = found["least_connections"], found["expected_cost"]
    # A chat's second turn has most of its prompt in one engine's cache: of all, somewhat less than half is there. Who
    # does not look comes back there every other time.
    assert seeing.hit_rate > 0.35
    assert seeing.hit_rate > 1.2 * blind.hit_rate
