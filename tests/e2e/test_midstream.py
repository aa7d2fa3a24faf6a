"""A backend fails after the client has had a part of its answer: nothing can be tried elsewhere any more, so the stream
ends with an error event and without `[DONE]`, and any other body is cut."""

import asyncio
from typing import Any

import pytest

from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until

EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN = [
    ("die_after=3", "cut", "upstream_lost"),
    ("abort_after=3", "engine_abort", "upstream_aborted"),
    ("error_event_after=3", "engine_abort", "upstream_aborted"),
    ("stall_after=3", "stalled", "timeout"),
]


@pytest.mark.parametrize(("fault", "outcome", "code"), BROKEN)
async def test_a_broken_stream_ends_with_an_error_event(stage: Stage, fault: str, outcome: str, code: str) -> None:
    engines = await stage.backends(2, fail=fault)
    proxy = await stage.proxy(*engines)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(max_tokens=9), [("X-Request-Id", "broken")])
    answer = await client.head()
    if fault == "stall_after=3":
        await client.text(answer, 3)
        stage.clock.jump(121)
    await client.rest(answer)
    assert (answer.status, answer.cut) == (200, False)
    said, failure = answer.events[:-1], answer.events[-1]
    # An engine's abort rides on a chunk of its own, which is not shown.
    assert len(answer.text.split()) == 3
    assert all(event["choices"][0]["finish_reason"] is None for event in said)
    assert set(failure["error"]) == {"message", "type", "param", "code"}
    assert failure["error"]["code"] == code
    assert b"[DONE]" not in answer.body
    assert b'abort"' not in answer.body
    record = await proxy.record("broken")
    assert (record["status"], record["outcome"], record["error"]) == (200, outcome, code)
    assert (record["attempts"], record["retries"]) == (1, [])
    assert record["backend"] == answer.header("x-llmproxy-backend")
    assert proxy.metric("llmproxy_attempts_total", outcome=outcome) == 1
    assert proxy.metric("llmproxy_errors_total", code=code) == 1
    assert sum(engine.in_flight for engine in engines) == 0
    # The client's connection is as good as before.
    for engine in engines:
        engine.set_fault("")
    assert (await client.ask("POST", CHAT, chat(max_tokens=2))).events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/v1/completions", {"prompt": "hello"}, "openai"),
        ("/v1/responses", {"input": "hello"}, "openai"),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}, "anthropic"),
    ],
)
async def test_error_events_speak_the_paths_dialect(stage: Stage, path: str, body: dict[str, Any], kind: str) -> None:
    proxy = await stage.proxy(await stage.backend(fail="die_after=3"))
    answer = await stage.ask(proxy, {"model": MODEL, "stream": True} | body, path)
    last = answer.body.decode().rstrip("\n").split("\n\n")[-1]
    if kind == "anthropic":
        assert last.startswith("event: error\ndata: ")
        assert answer.events[-1]["type"] == "error"
        assert answer.events[-1]["error"]["type"] == "api_error"
    else:
        assert last.startswith("data: ")
        assert answer.events[-1]["error"]["code"] == "upstream_lost"


async def test_a_client_that_needs_the_close_gets_event_and_close(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(fail="die_after=3"))
    answer = await stage.ask(proxy, chat(), version="1.0")
    assert answer.events[-1]["error"]["code"] == "upstream_lost"


async def test_half_an_event_is_not_shown(stage: Stage) -> None:
    """The error event must begin on a line of its own."""

    async def script(turn: Turn) -> None:
        await turn.say(EVENT_STREAM)
        await turn.chunk(b'data: {"choices":[]}\n\n')
        await turn.chunk(b'data: {"choi')
        turn.reset()

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat())
    first, failure = answer.events
    assert first == {"choices": []}
    assert failure["error"]["code"] == "upstream_lost"


@pytest.mark.parametrize("framing", ["Content-Length: 4000000", "Transfer-Encoding: chunked"])
async def test_any_other_body_is_cut(stage: Stage, framing: str) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(f"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n{framing}\r\n\r\n".encode())
        await turn.chunk(b"x" * 5000)
        await seen.wait()
        turn.reset()

    seen = asyncio.Event()
    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    await client.send("POST", "/v1/audio/speech", {"model": MODEL, "input": "x"}, [("X-Request-Id", "cut")])
    await until(lambda: proxy.app.listener.connections, "the connection")
    reading = asyncio.ensure_future(client.answer())
    await until(lambda: proxy.backend("b1").load.in_flight == 1 and _committed(proxy), "the head is out")
    seen.set()
    answer = await reading
    assert (answer.status, answer.cut) == (200, True)
    assert b"error" not in answer.body
    record = await proxy.record("cut")
    assert (record["outcome"], record["error"]) == ("cut", "upstream_lost")


def _committed(proxy: Any) -> bool:
    return any(connection._exchange.answered for connection in proxy.app.listener.connections)


async def test_a_stream_cut_at_its_connections_end_is_told_from_a_whole_one(stage: Stage) -> None:
    """Some engines frame streams by the connection's end: only `[DONE]` tells that nothing is missing."""

    async def script(turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await turn.say(b'data: {"choices":[]}\n\n')
        await turn.say(b'data: {"choices":[1]}\n\n')
        turn.close()

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat(), id="short")
    assert [*answer.events[:2]] == [{"choices": []}, {"choices": [1]}]
    assert answer.events[2]["error"]
    assert (await proxy.record("short"))["outcome"] == "cut"


async def test_the_total_time_ends_a_stream(stage: Stage) -> None:
    engine = await stage.backend(itl_s=0.02)
    proxy = await stage.proxy(engine, pool={"timeouts": {"total": "60s"}})
    client, answer = await stage.streaming(proxy, chat(max_tokens=100_000), id="long")
    stage.clock.jump(61)
    await client.rest(answer)
    assert answer.events[-1]["error"]["code"] == "timeout"
    record = await proxy.record("long")
    assert (record["outcome"], record["error"]) == ("deadline", "timeout")
    await until(lambda: engine.aborted == 1, "the abort")


async def test_the_total_time_also_bounds_what_comes_before(stage: Stage) -> None:
    engine = await stage.backend(fail="hang")
    proxy = await stage.proxy(engine, pool={"timeouts": {"total": "60s"}})
    asking = asyncio.ensure_future(stage.ask(proxy, chat(), id="late"))
    await until(lambda: engine.in_flight == 1, "the request")
    stage.clock.jump(61)
    answer = await asking
    assert (answer.status, answer.header("x-llmproxy-error")) == (504, "timeout")
    assert (await proxy.record("late"))["outcome"] == "deadline"


async def test_the_total_time_counts_in_the_queue_too(stage: Stage) -> None:
    engine = await stage.backend()
    pool = {"timeouts": {"total": "60s"}, "queue": {"wait": "600s"}}
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, pool=pool)
    taken = proxy.backend("b1").load
    taken.enter()
    asking = asyncio.ensure_future(stage.ask(proxy, chat(), id="late"))
    await until(lambda: proxy.pool().queue.waiting == 1, "a queue")
    stage.clock.jump(61)
    answer = await asking
    assert (answer.status, answer.header("x-llmproxy-error")) == (504, "timeout")
    assert (await proxy.record("late"))["attempts"] == 0
    taken.leave()


async def test_comments_are_no_progress(stage: Stage) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.say(EVENT_STREAM)
        await turn.chunk(b'data: {"choices":[1]}\n\n')
        while not gate.is_set():
            await turn.chunk(b": ping\n\n")
            await asyncio.sleep(0.005)

    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat())
    answer = await client.head()
    while answer.body.count(b": ping") < 3:
        assert await client.chunk(answer)
    stage.clock.jump(121)
    await client.rest(answer)
    gate.set()
    assert answer.events[-1]["error"]["code"] == "timeout"


async def test_slow_is_not_stalled(stage: Stage) -> None:
    """Gaps below `between_bytes` add up to much more than it."""
    gates = [asyncio.Event() for _ in range(4)]

    async def script(turn: Turn) -> None:
        await turn.say(EVENT_STREAM)
        for gate in gates:
            await turn.chunk(b'data: {"choices":[1]}\n\n')
            await gate.wait()
        await turn.chunk(b"data: [DONE]\n\n")
        await turn.say(b"0\r\n\r\n")

    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat())
    answer = await client.head()
    for gate in gates:
        assert await client.chunk(answer)
        stage.clock.jump(110)
        proxy.app._deadlines.sweep(stage.clock())
        gate.set()
    await client.rest(answer)
    assert answer.events[-1] == "[DONE]"


async def test_the_head_can_be_released_early(stage: Stage) -> None:
    """`commit_after`, for intermediaries with idle timeouts: the head goes, and a failure becomes an error event."""
    engine = await stage.backend(fail="stall_after=0")
    proxy = await stage.proxy(engine, pool={"timeouts": {"commit_after": "20s"}})
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat())
    await until(lambda: engine.in_flight == 1, "the request")
    stage.clock.jump(21)
    answer = await client.head()
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    assert engine.in_flight == 1
    engine.kill()
    await client.rest(answer)
    assert [event["error"]["code"] for event in answer.events] == ["upstream_lost"]


async def test_an_answer_after_an_early_head_is_whole(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=0.3)
    proxy = await stage.proxy(engine, pool={"timeouts": {"commit_after": "20s"}})
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(), [("X-Request-Id", "late")])
    await until(lambda: engine.in_flight == 1, "the request")
    stage.clock.jump(21)
    answer = await client.answer()
    assert (len(answer.text.split()), answer.events[-1]) == (5, "[DONE]")
    assert (await proxy.record("late"))["outcome"] == "ok"
