"""Answers pass as they are: byte for byte, as they come, framed anew only where they must be."""

import asyncio

import pytest

from tests.harness.client import events, request_bytes
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, Stage, chat

EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


async def test_a_stream_is_the_engines_byte_for_byte(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    body = chat(max_tokens=40, stream_options={"include_usage": True})
    for _ in range(3):
        direct = await stage.ask(engine, body, id="same")
        through = await stage.ask(proxy, body, id="same")
        if events(direct.body)[0]["created"] == events(through.body)[0]["created"]:
            break
    assert through.body == direct.body
    # The first words were held for the head's sake; from there on even the chunks are the engine's own.
    held = int(through.wire.split(b"\r\n")[0], 16)
    assert direct.wire.endswith(through.wire[through.wire.index(b"\r\n") + 2 + held + 2 :])
    assert held < len(direct.body) / 10
    assert through.text.count(" ") == 40
    assert (await proxy.record("same"))["completion_tokens"] == 40


async def test_a_whole_answer_is_the_engines_byte_for_byte(stage: Stage) -> None:
    body = b'{ "odd":\t[1, 2.50, "\\u00e9\xc3\xa9"]  }\n'

    async def script(turn: Turn) -> None:
        await turn.answer(body)

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat(stream=False))
    assert answer.wire == body
    assert answer.all("content-length") == [str(len(body))]
    assert answer.all("transfer-encoding") == []


@pytest.mark.parametrize("content_type", [b"text/event-stream", b"application/octet-stream", b"audio/mpeg"])
async def test_each_piece_is_passed_on_before_the_next_exists(stage: Stage, content_type: bytes) -> None:
    seen = [asyncio.Event() for _ in range(3)]

    async def script(turn: Turn) -> None:
        await turn.say(CHUNKED % content_type)
        for number, gate in enumerate(seen):
            await turn.chunk(event(f"piece {number}"))
            await gate.wait()
        await turn.say(END)

    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat())
    answer = await client.head()
    for number, gate in enumerate(seen):
        assert await client.chunk(answer) == event(f"piece {number}")
        gate.set()
    assert await client.chunk(answer) == b""


ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
STREAMS = {
    "carriage returns": [b"data: {}\r\n\r\ndata: 1\r\n\r\n", b"data: [DONE]\r\n\r\n"],
    "an event in three pieces": [b'data: {"choices"', b":[", b"]}\n\n", b"data: [DONE]\n\n"],
    "many lines": [b'event: x\nid: 7\ndata: {"a":1,\ndata: "b":2}\n\n', b"data: [DONE]\n\n"],
    "comments within": [event("a"), b": ping\n\n", event("b"), b": ping\n\n", b"data: [DONE]\n\n"],
    "comments before": [b": ping\n\n", b": ping\n\n", event("a"), b"data: [DONE]\n\n"],
    "a piece with one and a half": [event("a") + b"data: {", b"}\n\n", b"data: [DONE]\n\n"],
    "words that look like failures": [event("abort"), event("error"), event("usage"), b"data: [DONE]\n\n"],
    "without an end": [event("a"), event("b"), b"data: {"],
    "an answer of no words": [
        ROLE,
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ],
    "a blank line split": [event("a")[:-1], b"\n", event("b"), b"data: [DONE]\n\n"],
}


@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS.keys())
async def test_streams_however_they_are_cut_up(stage: Stage, pieces: list[bytes]) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(EVENT_STREAM)
        for piece in pieces:
            await turn.chunk(piece)
        await turn.say(END)

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat(), id="pieces")
    assert answer.body == b"".join(pieces)
    assert not answer.cut
    assert (await proxy.record("pieces"))["outcome"] == "ok"


async def test_trailers_pass(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(EVENT_STREAM)
        await turn.chunk(event("a"))
        await turn.say(b"0\r\nX-Checksum: 12\r\nServer-Timing: a, b\r\n\r\n")

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat())
    assert answer.body == event("a")
    assert answer.trailers == [("X-Checksum", "12"), ("Server-Timing", "a, b")]


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json", "text/plain"])
async def test_an_answer_that_ends_with_its_connection_is_framed(stage: Stage, content_type: str) -> None:
    body = event("a") + b"data: [DONE]\n\n"

    async def script(turn: Turn) -> None:
        await turn.say(f"HTTP/1.0 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode() + body[:20])
        await turn.say(body[20:])
        turn.close()

    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    for _ in range(2):
        answer = await client.ask("POST", CHAT, chat())
        assert (answer.status, answer.body, answer.cut) == (200, body, False)


async def test_a_large_whole_answer_is_not_held_to_its_end(stage: Stage) -> None:
    gate = asyncio.Event()
    half = b'{"data": "' + b"x" * (1 << 20) + b'", '
    rest = b'"more": "' + b"y" * (1 << 20) + b'"}'

    async def script(turn: Turn) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(half + rest)}\r\n\r\n"
        await turn.say(head.encode() + half)
        await gate.wait()
        await turn.say(rest)

    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(stream=False))
    answer = await client.head()
    assert await client.reader.readexactly(len(half)) == half
    gate.set()
    assert await client.reader.readexactly(len(rest)) == rest
    assert answer.header("content-length") == str(len(half + rest))


@pytest.mark.parametrize(("version", "hints"), [("1.1", [103]), ("1.0", [])])
async def test_early_hints_pass_to_those_who_know_them(stage: Stage, version: str, hints: list[int]) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await turn.answer(b"{}")

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat(stream=False), version=version)
    assert answer.informational == hints
    assert answer.body == b"{}"


async def test_headers_of_the_connection_end_here_and_the_rest_pass(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(
            b"HTTP/1.1 200 Fine By Me\r\nContent-Type: application/json\r\nConnection: keep-alive, X-Hop\r\n"
            b"Keep-Alive: timeout=5\r\nX-Hop: 1\r\nProxy-Connection: x\r\nX-Request-Id: theirs\r\nVia: 1.0 engine\r\n"
            b"X-LLMProxy-Backend: evil\r\nX-LLMProxy-Error: evil\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            b"X-Custom:   spaced  \r\nContent-Length: 2\r\n\r\n{}"
        )

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat(stream=False), id="mine")
    assert sorted((name.lower(), value) for name, value in answer.headers) == [
        ("content-length", "2"),
        ("content-type", "application/json"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("via", "1.0 engine, 1.1 llmproxy"),
        ("x-custom", "spaced"),
        ("x-llmproxy-backend", "b1"),
        ("x-request-id", "mine"),
    ]


async def test_the_backends_id_can_be_kept_back(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server={"reveal_backend": False})
    answer = await stage.ask(proxy, chat(stream=False))
    assert answer.status == 200
    assert answer.header("x-llmproxy-backend") is None
    assert "127.0.0.1" not in answer.head.decode()


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_do_not_wait_for_one(stage: Stage, status: str) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())

    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    for _ in range(2):
        answer = await client.ask("GET", "/v1/files")
        assert (answer.status, answer.header("etag")) == (int(status[:3]), "x")
        assert answer.header("content-length") is None
        assert answer.header("transfer-encoding") is None


async def test_an_empty_body_is_a_body(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.answer(b"")

    proxy = await stage.proxy(await stage.scripted(script))
    answer = await stage.ask(proxy, chat(stream=False))
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "0")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_head_gets_the_head(stage: Stage, method: str) -> None:
    async def script(turn: Turn) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n"
        await turn.say(head if turn.head.startswith(b"HEAD") else head + b"[1,2]")

    proxy = await stage.proxy(await stage.scripted(script))
    client = await stage.client(proxy)
    for _ in range(2):
        await client.send(method, "/v1/files")
        answer = await client.answer(bodyless=method == "HEAD")
        assert (answer.status, answer.header("content-length")) == (200, "5")
        assert answer.body == (b"[1,2]" if method == "GET" else b"")


async def test_a_backends_connection_is_used_again(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    for number in range(6):
        await stage.ask(proxy, chat(stream=bool(number % 2)))
    assert proxy.connections_to("b1").connects == 1
    assert proxy.metric("llmproxy_connections_reused_total") == 5


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=0.01)
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    requests = [
        request_bytes(
            "POST", CHAT, chat(stream=number % 2 == 0, max_tokens=number + 1), [("X-Request-Id", f"r{number}")]
        )
        for number in range(6)
    ]
    requests[3] = request_bytes("GET", "/v1/nothing/../../health", headers=[("X-Request-Id", "r3")])
    await client.send_raw(b"".join(requests))
    for number in range(6):
        answer = await client.answer()
        assert answer.header("x-request-id") == f"r{number}"
        if number == 3:
            assert answer.json == {"status": "ok"}
        elif number % 2:
            assert answer.json["usage"]["completion_tokens"] == number + 1
        else:
            assert len(answer.text.split()) == number + 1
