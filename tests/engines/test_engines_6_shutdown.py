"""SIGTERM to an engine under load, both ways it may take it, and its return."""

import asyncio

import pytest

from llmproxy.core.backend import Status
from tests.engines.asking import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    Asking,
    body_for,
    chat,
    error_in,
    finish_reasons,
    proxy_over,
)
from tests.engines.vllm_server import START_S, Engines, poll
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines


async def test_an_engine_that_drops_its_work_at_sigterm(up: Engines, stage: Stage) -> None:
    """vLLM's default: streams end with finish_reason "abort", whole answers are cut short and called 200. Now and then
    its engine process is gone before it could say so; then all of them hang, on a server that accepts nothing new."""
    proxy = await proxy_over(stage, *up.both, pool={"timeouts": {"first_byte": "30s", "between_bytes": "10s"}})
    paths = (CHAT, COMPLETIONS, MESSAGES)
    whole = [Asking(proxy.port, body_for(path, 400), path) for path in paths for _ in range(2)]
    streams = [Asking(proxy.port, body_for(path, 400, stream=True), path) for path in paths for _ in range(2)]
    await until(lambda: all(asking.answer and len(asking.answer.events) > 3 for asking in streams), "words", 60.0)
    assert proxy.backend("a").load.in_flight == 6
    up.a.terminate()
    answers = [await asking.ended() for asking in whole]
    assert [(answer.status, answer.header("x-llmproxy-backend")) for answer in answers] == [(200, "b")] * 6
    usage = [answer.json["usage"] for answer in answers]
    assert [count.get("completion_tokens", count.get("output_tokens")) for count in usage] == [400] * 6
    for asking in streams:
        answer = await asking.ended()
        assert not answer.cut
        assert "abort" not in finish_reasons(answer)
        if asking.backend == "a":
            assert error_in(answer) is not None
            assert answer.events[-1] != "[DONE]"
        else:
            assert error_in(answer) is None
    assert proxy.metric("llmproxy_attempts_total", backend="a", outcome="ok") == 0
    await up.a.gone()
    assert (await stage.ask(proxy, chat())).header("x-llmproxy-backend") == "b"


async def test_an_engine_comes_back_under_load(engines: Engines, stage: Stage) -> None:
    """While it loads the other one serves; nothing is sent there, so nothing has to be tried twice."""
    await engines.b.up()
    engines.a.start()
    proxy = await proxy_over(stage, *engines.both, healthy=False)
    await proxy.healthy("b")
    back = proxy.backend("a")
    served = set()
    async with asyncio.timeout(START_S):
        while "a" not in served:
            ready = back.status is Status.HEALTHY
            answer = await stage.ask(proxy, chat())
            assert answer.status == 200
            served.add(answer.header("x-llmproxy-backend"))
            assert ready or served == {"b"} or back.status is Status.HEALTHY
            await asyncio.sleep(0.5)
    assert proxy.metric("llmproxy_retries_total") == 0
    assert proxy.metric("llmproxy_attempts_total", backend="a") == proxy.metric(
        "llmproxy_attempts_total", backend="a", outcome="ok"
    )


async def test_an_engine_that_finishes_its_work_at_sigterm(up: Engines, stage: Stage) -> None:
    """With --shutdown-timeout it turns new requests away with a 500 while its /health still says 200."""
    proxy = await proxy_over(stage, *up.both)
    running = [Asking(proxy.port, chat(1000, stream=number % 2 == 0)) for number in range(8)]
    await up.b.has_running(4)
    up.b.terminate()

    async def turns_away() -> bool:
        direct = await up.b.ask("POST", CHAT, chat(1))
        return direct.status == 500 and b"cannot schedule new futures after shutdown" in direct.body

    await poll(turns_away, "a server that takes no new work")
    assert await up.b.health() == 200
    for number in range(20):
        answer = await stage.ask(proxy, chat(stream=number % 2 == 0))
        assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "a")
    assert proxy.metric("llmproxy_retries_total", cause="server_error") > 0
    for asking in running:
        answer = await asking.ended()
        assert (answer.status, answer.cut, error_in(answer)) == (200, False, None)
        assert finish_reasons(answer) == (["length"] if b"data: [DONE]" in answer.body else [])
    await up.b.gone()
