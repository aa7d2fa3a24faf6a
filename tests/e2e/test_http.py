"""HTTP/1.1 as clients speak it, well or badly: versions, keep-alive, expectations, limits, slowness."""

import json

import pytest

from tests.harness.client import Client, request_bytes
from tests.harness.stage import CHAT, Stage, chat

WHOLE = chat(stream=False, max_tokens=2)


# -- versions and connections ------------------------------------------------------------------------------------------


async def test_http_1_0_is_answered_and_closed(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    answer = await client.ask("POST", CHAT, WHOLE, version="1.0")
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert await client.at_end()


async def test_http_1_0_can_ask_to_stay(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    for _ in range(2):
        answer = await client.ask("POST", CHAT, WHOLE, [("Connection", "keep-alive")], version="1.0")
        assert (answer.status, answer.header("connection")) == (200, "keep-alive")


async def test_a_stream_to_http_1_0_ends_with_its_connection(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    answer = await client.ask("POST", CHAT, chat(), [("Connection", "keep-alive")], version="1.0")
    assert answer.header("transfer-encoding") is None
    assert answer.header("connection") == "close"
    assert len(answer.text.split()) == 5
    assert answer.events[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_says_close_is_closed(stage: Stage, stream: bool) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    answer = await client.ask("POST", CHAT, chat(stream=stream), [("Connection", "close")])
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert await client.at_end()


async def test_http2_is_refused_in_words(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    await client.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (505, "http_version")
    assert await client.at_end()


async def test_websockets_are_refused_in_words(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]
    answer = await client.ask("GET", "/v1/realtime", headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (501, "upgrade_not_supported")


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "BREW"])
async def test_methods_nobody_needs(stage: Stage, method: str) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    target = "engine.test:443" if method == "CONNECT" else "/v1/chat/completions"
    answer = await client.ask(method, target)
    assert 400 <= answer.status < 600
    assert engine.site.engine.prompt_tokens == 0


async def test_the_health_path_answers_for_the_proxy(stage: Stage) -> None:
    proxy = await stage.proxy("http://127.0.0.1:9", healthy=False)
    for path in ("/health", "/ping"):
        assert (await stage.ask(proxy, path=path)).json == {"status": "ok"}
        assert (await stage.ask(proxy, path=path, method="HEAD")).status == 200


# -- expectations ------------------------------------------------------------------------------------------------------


async def test_a_body_is_asked_for_when_the_client_waits_to_be_asked(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    body = json.dumps(WHOLE).encode()
    head = request_bytes("POST", CHAT, headers=[("Expect", "100-continue"), ("Content-Length", str(len(body)))])
    for _ in range(2):
        await client.send_raw(head)
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_raw(body)
        assert (await client.answer()).status == 200


async def test_a_body_that_would_be_refused_is_not_asked_for(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    for path, length, status in (("/sleep", 10, 403), ("/nothing", 10, 404), (CHAT, 1 << 40, 413)):
        client = await stage.client(proxy)
        await client.send("POST", path, headers=[("Expect", "100-continue"), ("Content-Length", str(length))])
        answer = await client.answer()
        assert (answer.status, answer.informational) == (status, [])
        assert await client.at_end()


async def test_the_pipelined_one_is_asked_for_its_body_in_its_turn(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(ttft_s=0.02))
    client = await stage.client(proxy)
    body = json.dumps(WHOLE).encode()
    head = request_bytes("POST", CHAT, headers=[("Expect", "100-continue"), ("Content-Length", str(len(body)))])
    await client.send_raw(request_bytes("POST", CHAT, chat(max_tokens=3)) + head)
    first = await client.answer()
    assert (len(first.text.split()), first.informational) == (3, [])
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send_raw(body)
    assert (await client.answer()).status == 200


async def test_other_expectations_are_not_met(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    answer = await stage.ask(proxy, WHOLE, headers=[("Expect", "200-maybe")])
    assert answer.status == 417


async def test_malformed_requests_reach_no_backend(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    body = b'{"model":"emulated","messages":[]}'
    smuggled = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    heads = [
        start + b"Content-Length: 34\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        start + b"Content-Length: 34\r\nContent-Length: 35\r\n\r\n",
        start + b"Content-Length: +34\r\n\r\n",
        start + b"Content-Length : 34\r\n\r\n",
        start + b"Content_Length: 34\r\n\r\n",
        start + b"Transfer-Encoding: xchunked\r\n\r\n",
        start + b"Transfer-Encoding: chunked, identity\r\n\r\n",
        start + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        start + b"X: a\r\n b\r\nContent-Length: 34\r\n\r\n",
        start + b"X: a\nContent-Length: 34\r\n\r\n",
        start + b"X: a\x00b\r\nContent-Length: 34\r\n\r\n",
        start.replace(b"Host: x\r\n", b"") + b"Content-Length: 34\r\n\r\n",
        start + b"Host: y\r\nContent-Length: 34\r\n\r\n",
    ]
    for head in heads:
        client: Client = await stage.client(proxy)
        await client.send_raw(head + body + smuggled)
        answer = await client.answer()
        assert 400 <= answer.status <= 501, head
        assert answer.header("x-llmproxy-error"), head
        assert await client.at_end(), head
        client.leave()
    assert engine.received == 0
