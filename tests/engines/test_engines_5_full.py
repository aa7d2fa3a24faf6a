"""A full engine turns requests away (503, or a stream whose first event is an error): they are served elsewhere."""

from collections.abc import AsyncIterator

import pytest

from llmproxy.core.backend import Status
from tests.engines.asking import CHAT, GENERATING, KEY_LINE, MESSAGES, Asking, body_for, chat, proxy_over
from tests.engines.vllm_server import Engines, poll
from tests.harness.stage import Stage

pytestmark = pytest.mark.engines

ROOM = 64
"""`--max-num-queued-reqs` of server a: requests running and waiting together."""


@pytest.fixture
async def full(up: Engines) -> AsyncIterator[Engines]:
    """Server a has no room for another request."""
    asked = [Asking(up.a.port, chat(up.endless), headers=[KEY_LINE]) for _ in range(ROOM)]

    async def is_full() -> bool:
        return await up.a.running() + await up.a.metric("num_requests_waiting") == ROOM

    await poll(is_full, "a full engine")
    yield up
    for asking in asked:
        await asking.leave()


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_what_a_full_engine_turns_away_is_served_elsewhere(
    full: Engines, stage: Stage, path: str, stream: bool
) -> None:
    proxy = await proxy_over(stage, *full.both)
    asked = [Asking(proxy.port, body_for(path, stream=stream), path) for _ in range(8)]
    answers = [await asking.ended() for asking in asked]
    assert [(answer.status, answer.cut, answer.header("x-llmproxy-backend")) for answer in answers] == [
        (200, False, "b")
    ] * 8
    assert proxy.metric("llmproxy_retries_total") > 0


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_what_nobody_has_room_for_is_told_in_the_engines_words(full: Engines, stage: Stage, path: str) -> None:
    proxy = await proxy_over(stage, full.a)
    direct = await full.a.ask("POST", path, body_for(path))
    through = await stage.ask(proxy, body_for(path), path)
    assert direct.status == through.status == 503
    assert through.body == direct.body
    assert b"different instance" in through.body
    assert through.header("x-llmproxy-error") is None


@pytest.mark.xfail(strict=True, reason="a 503 without Retry-After still counts against the engine's health")
async def test_a_full_engine_is_busy_not_sick(full: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *full.both)
    for _ in range(20):
        assert (await stage.ask(proxy, chat())).status == 200
    assert proxy.backend("a").status is Status.HEALTHY
