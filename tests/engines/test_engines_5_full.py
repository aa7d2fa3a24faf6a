"""A full engine turns requests away (503, or a stream whose first event is an error): they are served elsewhere."""

from collections.abc import AsyncIterator

import pytest

from llmproxy.core.backend import Status
from tests.engines.asking import (
    CHAT,
    COMPLETIONS,
    GENERATING,
    KEY_LINE,
    MESSAGES,
    Asking,
    body_for,
    chat,
    error_in,
    is_finished,
    proxy_over,
)
from tests.engines.tap import Tap
from tests.engines.vllm_server import Engines, VllmServer, poll
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines

ROOM = 64
"""`--max-num-queued-reqs` of server a: requests running and waiting together."""


@pytest.fixture
async def places(up: Engines) -> AsyncIterator[list[Asking]]:
    """Work without end in all of the places of server a but two."""
    asked = [Asking(up.a.port, chat(up.endless), headers=[KEY_LINE]) for _ in range(ROOM - 2)]
    await _holds(up.a, ROOM - 2)
    yield asked
    for asking in asked:
        await asking.leave()


@pytest.fixture
async def full(up: Engines, places: list[Asking]) -> Engines:
    """Server a has no room for another request."""
    places += [Asking(up.a.port, chat(up.endless), headers=[KEY_LINE]) for _ in range(2)]
    await _holds(up.a, ROOM)
    return up


async def _holds(server: VllmServer, requests: int) -> None:
    async def holds() -> bool:
        return await server.running() + await server.metric("num_requests_waiting") == requests

    await poll(holds, f"{requests} requests on server {server.id}")


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


@pytest.mark.parametrize("path", GENERATING)
async def test_a_full_engine_is_busy_not_sick(full: Engines, stage: Stage, path: str) -> None:
    proxy = await proxy_over(stage, full.a.backend | {"weight": 100}, full.b)
    for _ in range(8):
        # Over is the second for which a backend that was busy is passed over.
        stage.clock.jump(2)
        assert (await stage.ask(proxy, body_for(path), path)).header("x-llmproxy-backend") == "b"
    assert proxy.metric("llmproxy_retries_total", cause="busy") == 8
    assert proxy.backend("a").status is Status.HEALTHY


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
async def test_a_rush_for_the_last_places_makes_nobody_sick(
    up: Engines, stage: Stage, places: list[Asking], path: str
) -> None:
    """All are let in before the first of them is counted; the streams that are too many are opened, and then say so."""
    proxy = await proxy_over(stage, up.a.backend | {"weight": 100}, up.b)
    rush = [Asking(proxy.port, body_for(path, stream=True), path) for _ in range(10)]
    await until(lambda: sum(asking.answer is not None for asking in rush) >= 8, "eight that b took over", 60.0)
    for asking in places:
        await asking.leave()
    for asking in rush:
        answer = await asking.ended()
        assert (answer.status, answer.cut, error_in(answer)) == (200, False, None)
        assert is_finished(answer)
    assert proxy.metric("llmproxy_retries_total", cause="busy") == proxy.metric("llmproxy_retries_total") >= 1
    assert proxy.backend("a").status is Status.HEALTHY


async def test_comments_of_a_stream_that_waits_are_no_answer(up: Engines, stage: Stage) -> None:
    """Server b sends one a second while a stream waits in its queue."""
    places = [Asking(up.b.port, chat(up.endless), headers=[KEY_LINE]) for _ in range(16)]
    try:
        await up.b.has_running(16)
        async with Tap(up.b.port) as tap:
            backend = {"url": tap.url, "id": "b"}
            hurried = await proxy_over(stage, backend, pool={"timeouts": {"first_byte": "3s"}})
            late = await stage.ask(hurried, chat(stream=True), id="hurried")
            assert (late.status, late.header("x-llmproxy-error")) == (504, "timeout")
            assert b": keep-alive" in tap.line_with("hurried").said
            patient = await proxy_over(stage, backend)
            asking = Asking(patient.port, chat(stream=True), headers=[("X-Request-Id", "patient")])
            await until(lambda: tap.line_with("patient").said.count(b": keep-alive") >= 2, "two comments")
            assert asking.answer is None
            for place in places:
                await place.leave()
            answer = await asking.ended()
            assert answer.body == tap.answer_to("patient")
            assert answer.body.startswith(b": keep-alive")
            assert is_finished(answer)
    finally:
        for place in places:
            await place.leave()
