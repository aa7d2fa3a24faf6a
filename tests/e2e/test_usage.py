"""What is told of a request: tokens from the engine's `usage`, metrics, and a line in the access log."""

import json
from typing import Any

import pytest

from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat

INJECT = {"inject_usage": True}


@pytest.mark.parametrize(("path", "fields"), [(CHAT, {"messages": MESSAGES}), ("/v1/completions", {"prompt": "hello"})])
@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"continuous_usage_stats": False}])
async def test_usage_is_asked_for_and_hidden(
    stage: Stage, path: str, fields: dict[str, Any], options: dict[str, Any] | None
) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool=INJECT, models={MODEL: {"pool": "main"}})
    body = {"model": MODEL, "stream": True, "max_tokens": 7, **fields}
    body |= {} if options is None else {"stream_options": options}
    direct = await stage.ask(engine, body, path, id="direct")
    through = await stage.ask(proxy, body, path, id="through")
    assert b"usage" not in through.body
    assert len(through.events) == len(direct.events)
    assert (through.text, through.events[-1]) == (direct.text, "[DONE]")
    record = await proxy.record("through")
    assert (record["completion_tokens"], record["tokens_source"]) == (7, "usage")
    assert record["prompt_tokens"] > 0
    assert proxy.metric("llmproxy_completion_tokens_total", model=MODEL) == 7
    assert proxy.metric("llmproxy_prompt_tokens_total", model=MODEL) == record["prompt_tokens"]
    sent = json.loads(next(r.body for r in engine.requests if r.header("x-request-id") == "through"))
    assert sent == body | {"stream_options": (options or {}) | {"include_usage": True}}


async def test_usage_that_the_client_asked_for_is_shown(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool=INJECT)
    body = chat(max_tokens=3, stream_options={"include_usage": True})
    answer = await stage.ask(proxy, body, id="asked")
    assert answer.events[-2]["usage"]["completion_tokens"] == 3
    assert next(r.body for r in engine.requests if r.header("x-request-id") == "asked") == json.dumps(body).encode()


async def test_whole_answers_and_other_routes_are_left_alone(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool=INJECT)
    bodies: list[tuple[str, dict[str, Any]]] = [
        (CHAT, chat(stream=False)),
        ("/v1/messages", {"model": MODEL, "messages": MESSAGES, "max_tokens": 3, "stream": True}),
        ("/v1/responses", {"model": MODEL, "input": "hello", "stream": True}),
        ("/v1/embeddings", {"model": MODEL, "input": "hello"}),
    ]
    for number, (path, body) in enumerate(bodies):
        assert (await stage.ask(proxy, body, path, id=f"r{number}")).status == 200
        assert json.dumps(body).encode() in [request.body for request in engine.requests]
        record = await proxy.record(f"r{number}")
        assert record["tokens_source"] == "usage"
        assert record["prompt_tokens"] > 0


async def test_a_hidden_chunk_may_come_in_pieces_or_with_others(stage: Stage) -> None:
    first = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    done = b"data: [DONE]\n\n"
    for pieces in (
        [first, usage + done],
        [first + usage, done],
        [first + usage + done],
        [first, usage[:20], usage[20:], done],
        [first, usage[:-1], b"\n" + done],
        [first.replace(b"\n\n", b"\r\n\r\n") + usage.replace(b"\n\n", b"\r\n\r\n"), done],
    ):

        async def script(turn: Turn, pieces: list[bytes] = pieces) -> None:
            await turn.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                await turn.chunk(piece)
            await turn.say(b"0\r\n\r\n")

        proxy = await stage.proxy(await stage.scripted(script), pool=INJECT)
        answer = await stage.ask(proxy, chat(), id="pieces")
        assert answer.body.replace(b"\r\n", b"\n") == first + done, pieces
        record = await proxy.record("pieces")
        assert (record["prompt_tokens"], record["completion_tokens"]) == (3, 1)


async def test_without_usage_tokens_are_estimated(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    await stage.ask(proxy, chat(max_tokens=9), id="estimated")
    record = await proxy.record("estimated")
    assert (record["tokens_source"], record["completion_tokens"], record["prompt_tokens"]) == ("chunks", 9, None)


async def test_the_access_log_has_a_line_for_every_request(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(ttft_s=0.03), models={MODEL: {"pool": "main"}})
    await stage.ask(proxy, chat(max_tokens=4), f"{CHAT}?secret=1", id="one")
    await stage.ask(proxy, path="/v1/models", id="two")
    await stage.ask(proxy, {"model": "other"}, id="three")
    await stage.ask(proxy, path="/sleep", id="four", method="POST")
    await stage.ask(proxy, b"", path="/v1/x", method="PUT", headers=[("Transfer-Encoding", "xyz")])
    lines = await proxy.log()
    assert [line["request_id"] for line in lines[:4]] == ["one", "two", "three", "four"]
    one = lines[0]
    assert {key: one[key] for key in ("client", "method", "path", "pool", "model", "backend", "status", "stream")} == {
        "client": "127.0.0.1",
        "method": "POST",
        "path": CHAT,
        "pool": "main",
        "model": MODEL,
        "backend": "b1",
        "status": 200,
        "stream": True,
    }
    assert 25 <= one["ttft_ms"] <= one["duration_ms"]
    assert (one["attempts"], one["outcome"], one["error"], one["queue_ms"]) == (1, "ok", None, None)
    assert one["bytes_in"] == len(json.dumps(chat(max_tokens=4)))
    assert one["bytes_out"] > 500
    assert [(line["status"], line["outcome"], line["error"]) for line in lines[1:4]] == [
        (200, "ok", None),
        (404, "refused", "model_not_found"),
        (403, "refused", "route_not_allowed"),
    ]
    assert 400 <= lines[4]["status"] <= 501
    assert sum(line["status"] == 200 for line in lines) == proxy.metric("llmproxy_requests_total", status="200")


async def test_nothing_a_client_sends_can_forge_a_line(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    evil = 'x"}\n{"request_id": "forged", "model": "\u2028\u0085\u001b[2J'
    await stage.ask(proxy, chat(stream=False) | {"model": evil}, "/v1/chat/completions/%0a%1b%22", id="evil")
    await stage.ask(proxy, chat(stream=False) | {"model": evil}, id="evil2")
    lines = await proxy.log()
    assert [line["request_id"] for line in lines] == ["evil", "evil2"]
    assert lines[1]["model"] == evil
    text = proxy._log.read_bytes()
    assert text.count(b"\n") == 2
    assert all(0x20 <= byte < 0x7F for byte in text.replace(b"\n", b""))


async def test_metrics_tell_the_same_story(stage: Stage) -> None:
    engines = await stage.backends(2, ttft_s=0.02)
    proxy = await stage.proxy(*engines, models={MODEL: {"pool": "main"}})
    for number in range(6):
        await stage.ask(proxy, chat(stream=bool(number % 2), max_tokens=4))
    assert proxy.metric("llmproxy_requests_total", pool="main", model=MODEL, status="200") == 6
    assert proxy.metric("llmproxy_requests_total", backend="b1") == proxy.metric(
        "llmproxy_requests_total", backend="b2"
    )
    assert proxy.metric("llmproxy_time_to_first_token_seconds_count", model=MODEL) == 3
    # Timers count whole milliseconds, and may be a part of one early.
    assert proxy.metric("llmproxy_time_to_first_token_seconds_sum", model=MODEL) >= 3 * 0.019
    assert proxy.metric("llmproxy_time_to_first_token_seconds_bucket", model=MODEL, le="0.01") == 0
    assert proxy.metric("llmproxy_inter_token_latency_seconds_count", model=MODEL) > 0
    assert proxy.metric("llmproxy_request_duration_seconds_count", model=MODEL) == 6
    assert proxy.metric("llmproxy_proxy_overhead_seconds_count") == 6
    assert proxy.metric("llmproxy_completion_tokens_total", model=MODEL) == 24
    assert proxy.metric("llmproxy_backend_up") == 2
    assert proxy.metric("llmproxy_probes_total", result="ok") >= 2
    assert proxy.metric("llmproxy_in_flight") == 0
    assert proxy.metric("llmproxy_buffered_body_bytes") == 0
    assert proxy.metric("llmproxy_connections_opened_total", side="downstream") == 6
    assert proxy.metric("llmproxy_connections_opened_total", side="upstream") <= 4
