"""A backend fails while nothing of its answer has reached the client: another one answers, and the client sees no more
than that. `b1` is always asked first (by its weight); `b2` is well unless a test says otherwise."""

import asyncio
from typing import Any

import pytest

from llmproxy.core.backend import Status
from llmproxy.emulator import Emulator
from tests.harness.client import Answer
from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until


async def asked(stage: Stage, proxy: Proxy, engine: Emulator, fault: str, body: Any) -> Answer:
    """The answer to a request with the id `moved`. Should `engine` fall silent, time goes by."""
    asking = asyncio.ensure_future(stage.ask(proxy, body, id="moved"))
    if fault.startswith(("hang", "stall")):
        await until(lambda: engine.in_flight == 1, "the request, which is not answered")
        stage.clock.jump(301)
    return await asking


async def lopsided(stage: Stage, *engines: Any, pool: dict[str, Any] | None = None, **options: Any) -> Proxy:
    """A proxy that asks `b1` first, then `b2`, and so on."""
    entries = [{"url": engine.url, "weight": 10.0 ** -(3 * place)} for place, engine in enumerate(engines, 1)]
    settings = {"policy": "round_robin"} | (pool or {})
    return await stage.proxy(*entries, pool=settings, **options)


async def pair(stage: Stage, fault: str, **options: Any) -> tuple[Proxy, Emulator, Emulator]:
    """A proxy over `b1`, which has `fault`, and `b2`."""
    left, right = await stage.backends(2)
    proxy = await lopsided(stage, left, right, **options)
    left.set_fault(fault)
    return proxy, left, right


BEFORE_THE_ANSWER = [
    ("refuse", "refused"),
    ("reset", "reset"),
    ("reset_after_headers", "reset"),
    ("die_after=0", "reset"),
    ("garbage", "bad_response"),
    ("status=500", "server_error"),
    ("status=502", "server_error"),
    ("status=503", "server_error"),
    ("status=504", "server_error"),
    ("status=503+7", "busy"),
    ("status=429", "busy"),
    ("abort_after=0", "engine_abort"),
    ("hang", "first_byte_timeout"),
    ("stall", "first_byte_timeout"),
    ("stall_after=0", "first_byte_timeout"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("fault", "cause"), BEFORE_THE_ANSWER)
async def test_another_backend_answers(stage: Stage, fault: str, cause: str, stream: bool) -> None:
    proxy, left, right = await pair(stage, fault)
    answer = await asked(stage, proxy, left, fault, chat(stream=stream))
    assert (answer.status, answer.header("x-llmproxy-backend"), answer.header("x-emulator")) == (200, "b2", "b2")
    assert not answer.cut
    said = answer.text if stream else answer.json["choices"][0]["message"]["content"]
    assert len(said.split()) == 5
    assert not stream or answer.events[-1] == "[DONE]"
    record = await proxy.record("moved")
    assert record["backend"] == "b2"
    assert (record["status"], record["outcome"], record["error"]) == (200, "ok", None)
    assert (record["attempts"], record["retries"]) == (2, [cause])
    assert proxy.metric("llmproxy_retries_total", cause=cause) == 1
    assert proxy.metric("llmproxy_attempts_total", backend="b1", outcome=cause) == 1
    assert proxy.metric("llmproxy_attempts_total", backend="b2", outcome="ok") == 1
    assert proxy.metric("llmproxy_requests_total", backend="b2", status="200") == 1
    assert right.received == 1
    assert left.received == (fault != "refuse")
    assert left.in_flight == 0


WHOLE_ONLY = [
    ("die_after=3", "reset"),
    ("abort_after=3", "engine_abort"),
    ("error_event_after=3", "server_error"),
    ("truncate_after=3", "reset"),
    ("stall_after=3", "first_byte_timeout"),
]


@pytest.mark.parametrize(("fault", "cause"), WHOLE_ONLY)
async def test_a_whole_answer_is_safe_until_its_end(stage: Stage, fault: str, cause: str) -> None:
    proxy, left, _ = await pair(stage, fault)
    answer = await asked(stage, proxy, left, fault, chat(stream=False))
    assert (answer.status, answer.header("x-emulator")) == (200, "b2")
    assert answer.json["choices"][0]["finish_reason"] == "length"
    assert (await proxy.record("moved"))["retries"] == [cause]


async def test_an_error_as_the_first_event_is_no_answer(stage: Stage) -> None:
    proxy, *_ = await pair(stage, "error_event_after=0")
    answer = await stage.ask(proxy, chat(), id="moved")
    assert (answer.header("x-emulator"), answer.events[-1]) == ("b2", "[DONE]")
    assert (await proxy.record("moved"))["retries"] == ["engine_abort"]


async def test_comments_are_not_an_answer(stage: Stage) -> None:
    """They come at once and for good, and yet the first byte is late."""
    proxy, left, _ = await pair(stage, "stall_after=0,comments=20")
    answer = await asked(stage, proxy, left, "stall", chat())
    assert (answer.header("x-emulator"), answer.events[-1]) == ("b2", "[DONE]")
    assert answer.body.startswith(b"data: {")
    assert (await proxy.record("moved"))["retries"] == ["first_byte_timeout"]
    assert left.in_flight == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "hello", "stream": True}),
        ("/v1/responses", {"input": "hello", "stream": True}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 4, "stream": True}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 4}),
        ("/v1/embeddings", {"input": "hello"}),
        ("/tokenize", {"prompt": "hello"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ],
)
async def test_every_route_that_only_computes_moves(stage: Stage, path: str, body: dict[str, Any]) -> None:
    proxy, left, right = await pair(stage, "reset")
    answer = await stage.ask(proxy, {"model": MODEL} | body, path)
    assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "b2")
    assert (left.received, right.received) == (1, 1)


async def test_the_first_answer_that_may_be_passed_on_wins(stage: Stage) -> None:
    """Every one has another failure; the third answers."""
    engines = await stage.backends(4)
    proxy = await lopsided(stage, *engines, pool={"retry": {"attempts": 4}})
    for engine, fault in zip(engines, ("status=503+1", "die_after=0", "abort_after=0", ""), strict=True):
        engine.set_fault(fault)
    answer = await stage.ask(proxy, chat(), id="far")
    assert answer.header("x-emulator") == "b4"
    record = await proxy.record("far")
    assert (record["attempts"], record["retries"]) == (4, ["busy", "reset", "engine_abort"])


async def test_a_stream_that_ends_before_it_began_is_lost(stage: Stage) -> None:
    """Framed by its connection's end, it could be taken for an empty answer."""

    async def script(turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: ping\n\n")
        turn.close()

    broken, well = await stage.scripted(script), await stage.backend()
    proxy = await lopsided(stage, broken, well)
    answer = await stage.ask(proxy, chat(), id="empty")
    assert (answer.header("x-llmproxy-backend"), answer.events[-1]) == ("b2", "[DONE]")
    assert (await proxy.record("empty"))["retries"] == ["reset"]


async def test_a_backend_that_does_not_even_refuse(stage: Stage) -> None:
    """As when its machine is gone: the connection hangs in the making."""
    deaf, well = await stage.deaf(), await stage.backend()
    proxy = await lopsided(stage, deaf, well, pool={"timeouts": {"connect": "500ms"}})
    await deaf.turn_deaf()
    answer = await stage.ask(proxy, chat(), id="hung")
    assert (answer.header("x-llmproxy-backend"), answer.events[-1]) == ("b2", "[DONE]")
    assert (await proxy.record("hung"))["retries"] == ["connect_timeout"]


# -- when nobody can ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "code", "outcome"),
    [
        ("refuse", 502, "upstream_unreachable", "refused"),
        ("reset", 502, "upstream_lost", "reset"),
        ("die_after=0", 502, "upstream_lost", "reset"),
        ("garbage", 502, "upstream_bad_response", "bad_response"),
        ("abort_after=0", 502, "upstream_aborted", "engine_abort"),
        ("hang", 504, "timeout", "first_byte_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_the_proxy_says_what_failed(
    stage: Stage, fault: str, status: int, code: str, outcome: str, stream: bool
) -> None:
    proxy, left, right = await pair(stage, fault)
    right.set_fault(fault)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(stream=stream), [("X-Request-Id", "lost")])
    for engine in (left, right) if fault == "hang" else ():
        await until(lambda engine=engine: engine.in_flight == 1, "the request, which is not answered")
        stage.clock.jump(301)
    answer = await client.answer()
    assert (answer.status, answer.header("x-llmproxy-error")) == (status, code)
    assert answer.json["error"]["code"] == code
    assert "127.0.0.1" not in answer.body.decode()
    record = await proxy.record("lost")
    assert (record["status"], record["error"], record["outcome"]) == (status, code, outcome)
    assert (record["attempts"], record["retries"]) == (2, [outcome])
    # The connection is as good as ever.
    left.set_fault("")
    right.set_fault("")
    await left.ready()
    await right.ready()
    assert (await client.ask("POST", CHAT, chat(stream=stream))).status == 200


@pytest.mark.parametrize(
    ("fault", "status", "retry_after"),
    [("status=500", 500, None), ("status=503+7", 503, "7"), ("status=429+3", 429, "3"), ("status=400", 400, None)],
)
async def test_the_engines_own_error_is_passed_on(
    stage: Stage, fault: str, status: int, retry_after: str | None
) -> None:
    proxy, _, right = await pair(stage, fault)
    right.set_fault(fault)
    answer = await stage.ask(proxy, chat(), id="error")
    assert (answer.status, answer.json["error"]["message"]) == (status, "emulated failure")
    assert answer.header("retry-after") == retry_after
    assert answer.header("x-llmproxy-error") is None
    last = "b1" if status == 400 else "b2"
    assert answer.header("x-llmproxy-backend") == last
    record = await proxy.record("error")
    assert (record["status"], record["backend"], record["attempts"]) == (status, last, 1 if status == 400 else 2)


FULL = b'data: {"error": {"message": "... Please try again later or on a different instance.", "code": 503}}\n\n'


async def test_when_all_engines_are_full_only_as_their_streams_begin(stage: Stage) -> None:
    """They have said 200 by then, so what they say is of no use to the client: it is told as a full proxy tells it."""

    async def script(turn: Turn) -> None:
        await turn.answer(FULL + b"data: [DONE]\n\n", "text/event-stream")

    proxy = await stage.proxy(await stage.scripted(script), await stage.scripted(script))
    for _ in range(8):
        answer = await stage.ask(proxy, chat(), id="full")
        assert (answer.status, answer.header("x-llmproxy-error")) == (503, "upstream_busy")
        assert int(answer.header("retry-after") or 0) > 0
    record = await proxy.record("full")
    assert (record["outcome"], record["retries"]) == ("busy", ["busy"])
    assert {backend.status for backend in proxy.pool().backends} == {Status.HEALTHY}


async def test_errors_of_failed_attempts_speak_anthropics_dialect_too(stage: Stage) -> None:
    proxy, _, right = await pair(stage, "reset")
    right.set_fault("reset")
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3}
    answer = await stage.ask(proxy, body, "/v1/messages")
    assert answer.status == 502
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "api_error"


@pytest.mark.parametrize(("store", "answered"), [(False, True), (True, False)])
async def test_a_response_that_nobody_can_ask_for_again_is_tried_elsewhere(
    stage: Stage, store: bool, answered: bool
) -> None:
    """Its id was seen, as it opens the stream; only a stored response is bound to the backend that made it."""
    opener = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n'

    async def script(turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await turn.chunk(opener)
        turn.reset()

    broken = await stage.scripted(script)
    # The first of two equals is not always the first one asked, so ask twice.
    proxy = await stage.proxy({"url": broken.url, "id": "broken"}, await stage.backend())
    asked = {"model": "emulated", "input": "hello", "stream": True, "store": store}
    statuses = [(await stage.ask(proxy, asked, path="/v1/responses")).status for _ in range(2)]
    assert len(broken.turns) >= 1
    assert (statuses == [200, 200]) is answered
