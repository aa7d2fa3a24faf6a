"""Asleep or paused, an engine says that it is well and takes requests, which then hang. None may go there."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from llmproxy.control.sleep_state import SleepGauge
from llmproxy.core.backend import Status
from tests.engines.asking import (
    CHAT,
    COMPLETIONS,
    KEY_LINE,
    MESSAGES,
    RESPONSES,
    Asking,
    body_for,
    chat,
    error_in,
    finish_reasons,
    proxy_over,
)
from tests.engines.vllm_server import Engines, VllmServer, poll
from tests.harness.proxy import Proxy
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines

DOWN = {"asleep": "/sleep?level=1", "paused": "/pause?mode=abort"}
UP = {"asleep": "/wake_up", "paused": "/resume"}


@pytest.fixture
async def both(up: Engines) -> AsyncIterator[Engines]:
    """Both servers, awake before and after."""
    try:
        yield up
    finally:
        for server in up.both:
            for path in UP.values():
                assert (await server.ask("POST", path)).status == 200


async def seen_as(proxy: Proxy, id: str, status: Status) -> None:
    await until(lambda: proxy.backend(id).status is status, f"{id} seen as {status.value}", 30.0)


async def served_by(stage: Stage, proxy: Proxy, requests: int = 8) -> Counter[str | None]:
    asked = [Asking(proxy.port, chat()) for _ in range(requests)]
    answers = [await asking.ended() for asking in asked]
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.header("x-llmproxy-backend") for answer in answers)


@pytest.mark.parametrize("how", DOWN)
async def test_no_request_goes_to_an_engine_that_sleeps(both: Engines, stage: Stage, how: str) -> None:
    proxy = await proxy_over(stage, *both.both)
    assert (await both.a.ask("POST", DOWN[how])).status == 200
    await seen_as(proxy, "a", Status.SLEEPING)
    assert await both.a.health() == 200
    assert await served_by(stage, proxy) == {"b": 8}
    assert (await both.b.ask("POST", DOWN[how])).status == 200
    await seen_as(proxy, "b", Status.SLEEPING)
    nobody = await stage.ask(proxy, chat())
    assert (nobody.status, nobody.header("x-llmproxy-error")) == (503, "no_backend_available")
    for server in both.both:
        assert (await server.ask("POST", UP[how])).status == 200
        await seen_as(proxy, server.id, Status.HEALTHY)
    assert await served_by(stage, proxy) == {"a": 4, "b": 4}
    assert proxy.metric("llmproxy_retries_total") == 0


async def test_the_gauge_tells_sleep_where_there_is_no_route_to_ask(both: Engines) -> None:
    assert (await sleep_gauge(both.a)) is False
    assert (await both.a.ask("POST", DOWN["asleep"])).status == 200
    assert (await sleep_gauge(both.a)) is True


async def sleep_gauge(server: VllmServer) -> bool | None:
    gauge = SleepGauge()
    gauge.feed((await server.ask("GET", "/metrics")).body)
    return gauge.value


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
async def test_an_answer_that_the_engine_gives_up_is_made_elsewhere(both: Engines, stage: Stage, path: str) -> None:
    proxy = await proxy_over(stage, *both.both)
    asked = [Asking(proxy.port, body_for(path, 400), path) for _ in range(2)]
    await both.a.has_running(1)
    await both.a.ask("POST", DOWN["paused"])
    answers = [await asking.ended() for asking in asked]
    assert [(answer.status, answer.header("x-llmproxy-backend")) for answer in answers] == [(200, "b")] * 2
    usage = [answer.json["usage"] for answer in answers]
    assert [count.get("completion_tokens", count.get("output_tokens")) for count in usage] == [400] * 2
    assert proxy.metric("llmproxy_retries_total", cause="engine_abort") == 1


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
async def test_a_stream_that_the_engine_gives_up_ends_with_an_error(both: Engines, stage: Stage, path: str) -> None:
    proxy = await proxy_over(stage, both.a)
    body = body_for(path, both.endless, stream=True)
    asking = Asking(proxy.port, body, path, [("X-Request-Id", "given-up")])
    await until(lambda: asking.answer is not None and len(asking.answer.events) > 3, "some words", 30.0)
    await both.a.ask("POST", DOWN["paused"])
    answer = await asking.ended()
    assert not answer.cut
    assert error_in(answer) is not None
    assert answer.events[-1] != "[DONE]"
    assert b"message_stop" not in answer.body
    assert finish_reasons(answer) == []
    record = await proxy.record("given-up")
    assert (record["outcome"], record["error"]) == ("engine_abort", "upstream_aborted")


async def test_a_request_given_up_in_the_engines_queue_is_made_elsewhere(both: Engines, stage: Stage) -> None:
    """Such a stream is opened and ended as if it were whole; nothing but its emptiness gives it away."""
    places = [Asking(both.a.port, chat(both.endless), headers=[KEY_LINE]) for _ in range(16)]
    await both.a.has_running(16)
    proxy = await proxy_over(stage, *both.both)
    kinds = [(path, stream) for path in (CHAT, COMPLETIONS, MESSAGES) for stream in (True, False)]
    asked = [Asking(proxy.port, body_for(path, 20, stream=stream), path) for path, stream in kinds * 2]

    async def six_wait() -> bool:
        return await both.a.metric("num_requests_waiting") == 6

    await poll(six_wait, "six requests in the queue of a")
    await both.a.ask("POST", DOWN["paused"])
    for asking in asked:
        answer = await asking.ended()
        assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "b")
        assert error_in(answer) is None
        counted = [20] * (b'"usage"' in answer.body)
        assert re.findall(rb'"(?:completion|output)_tokens":([1-9]\d*)', answer.body) == [b"%d" % n for n in counted]
        assert len(answer.events) > 10 or counted
    assert proxy.metric("llmproxy_retries_total", cause="engine_abort") == 6
    for asking in places:
        await asking.leave()


async def test_nobody_can_tell_an_aborted_response_from_a_whole_one(both: Engines) -> None:
    """vLLM calls an aborted answer of /v1/responses completed, so the proxy passes it on as that. When this fails,
    vLLM has learnt to say so, and the proxy should listen."""
    direct = asyncio.create_task(both.a.ask("POST", RESPONSES, body_for(RESPONSES, both.endless)))
    await both.a.has_running(1)
    await both.a.ask("POST", DOWN["paused"])
    answer = (await direct).json
    assert answer["usage"]["output_tokens"] < both.endless
    assert (answer["status"], answer["incomplete_details"]) == ("completed", None)
