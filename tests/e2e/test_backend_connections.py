"""Connections to backends: kept, retired, made anew, and never trusted with more than they were asked for."""

import pytest

from llmproxy.core.backend import Status
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until


async def test_a_kept_connection_that_died_is_not_held_against_anybody(stage: Stage) -> None:
    """The backend closes it just as the next request is on its way."""

    async def script(turn: Turn) -> None:
        if turn.number == 2:
            turn.reset()
        else:
            await turn.answer(b'{"served": %d}' % turn.number)

    backend = await stage.scripted(script)
    retry = {"attempts": 1, "after_crash": 0, "budget": 0, "budget_floor": 0}
    proxy = await stage.proxy(backend, pool={"retry": retry, "breaker": {"failures": 1}})
    assert (await stage.ask(proxy, chat(stream=False))).json == {"served": 1}
    answer = await stage.ask(proxy, chat(stream=False), id="again")
    assert (answer.status, answer.json, answer.header("x-llmproxy-backend")) == (200, {"served": 1}, "b1")
    assert (await proxy.record("again"))["retries"] == ["reset"]
    assert proxy.connections_to("b1").connects == 2
    assert proxy.backend("b1").status is Status.HEALTHY


async def test_it_is_tried_anew_once_only(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        if len(backend.turns) > 1:
            turn.reset()
        else:
            await turn.answer(b"{}")

    backend = await stage.scripted(script)
    proxy = await stage.proxy(backend)
    assert (await stage.ask(proxy, chat(stream=False))).status == 200
    answer = await stage.ask(proxy, chat(stream=False))
    assert (answer.status, answer.header("x-llmproxy-error")) == (502, "upstream_lost")
    assert len(backend.turns) == 3


async def test_an_idle_connection_that_the_backend_closes_is_forgotten(stage: Stage) -> None:
    engine = await stage.backend(keepalive_s=0.05)
    proxy = await stage.proxy(engine)
    assert (await stage.ask(proxy, chat(stream=False))).status == 200
    await until(lambda: proxy.connections_to("b1").open == 0, "the close")
    assert (await stage.ask(proxy, chat(stream=False), id="fresh")).status == 200
    assert (await proxy.record("fresh"))["attempts"] == 1


async def test_connections_are_retired_before_the_backend_would(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    assert (await stage.ask(proxy, chat(stream=False))).status == 200
    assert proxy.connections_to("b1").open == 1
    stage.clock.jump(4.5)
    await until(lambda: proxy.connections_to("b1").open == 0, "the retirement")


async def test_bytes_nobody_asked_for_poison_nothing(stage: Stage) -> None:
    engine = await stage.backend(fail="surplus")
    proxy = await stage.proxy(engine)
    for number in range(4):
        answer = await stage.ask(proxy, chat(stream=bool(number % 2)), id=f"s{number}")
        assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "b1")
        assert b"surplus" not in answer.body
        assert (await proxy.record(f"s{number}"))["attempts"] == 1
    assert engine.received == 4


async def test_a_backend_known_by_its_name(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(f"http://localhost:{engine.port}")
    assert (await stage.ask(proxy, chat())).events[-1] == "[DONE]"
    assert next(r for r in engine.requests if r.path == CHAT).header("host") == f"localhost:{engine.port}"


async def test_a_fault_of_our_own_leaves_no_connection_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("a fault of our own")

    proxy = await stage.proxy(await stage.backend())
    monkeypatch.setattr("llmproxy.pipeline.attempt.request_head", fails)
    answer = await stage.ask(proxy, chat(stream=False))
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal_error")
    assert "a fault of our own" in caplog.text
    await until(lambda: proxy.handler.links.totals() == (0, 1), "the end of the backend's connection")
    await proxy.at_rest()
