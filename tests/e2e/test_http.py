"""HTTP/1.1 as clients speak it, well or badly: versions, keep-alive, expectations, limits, slowness."""

import asyncio
import json

import pytest

from tests.harness.client import Client, request_bytes
from tests.harness.proxy import Proxy
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

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


# -- limits ------------------------------------------------------------------------------------------------------------

LIMITS = {
    "limits": {"body": "10KiB", "multipart": "10KiB", "buffered": "25KiB", "header": "4KiB", "request_line": "1KiB"}
}


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_refused_as_soon_as_that_is_known(stage: Stage, chunked: bool) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server=LIMITS)
    client = await stage.client(proxy)
    if chunked:
        await client.send("POST", CHAT, headers=[("Transfer-Encoding", "chunked")])
        await client.send_raw(b"2800\r\n" + b" " * 0x2800 + b"\r\n")
        await client.send_raw(b"1\r\n \r\n")
    else:
        await client.send("POST", CHAT, headers=[("Content-Length", str(0x2801))])
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (413, "body_too_large")
    assert answer.header("connection") == "close"
    assert await client.at_end()
    assert engine.received == 0


async def test_the_answer_outlives_the_bytes_that_still_come(stage: Stage) -> None:
    """Closing at once would reset the connection, and the reset would destroy the answer."""
    proxy = await stage.proxy(await stage.backend(), server=LIMITS)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, headers=[("Content-Length", "500000")])
    for _ in range(10):
        await client.send_raw(b"x" * 50_000)
    assert (await client.answer()).status == 413


async def test_a_body_as_large_as_allowed_passes(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server=LIMITS)
    body = json.dumps(WHOLE).encode()
    body += b" " * (0x2800 - len(body))
    answer = await stage.ask(proxy, body, headers=[("Content-Type", "application/json")])
    assert answer.status == 200
    assert body in [request.body for request in engine.requests]


async def test_all_held_bodies_together_are_bounded(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server=LIMITS)
    uploads = [await stage.client(proxy) for _ in range(3)]
    for client in uploads:
        await client.send("POST", CHAT, headers=[("Content-Length", "10240")])
        await client.send_raw(b"{" + b" " * 9000)
    answer = await uploads[2].answer()
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert answer.json["error"]["code"] == "overloaded"
    await until(lambda: proxy.handler.buffered == 2 * 9001, "the two that fit")
    assert proxy.metric("llmproxy_buffered_body_bytes") == 2 * 9001
    uploads[0].leave()
    uploads[1].leave(reset=True)
    await until(lambda: proxy.handler.buffered == 0, "nothing held")


@pytest.mark.parametrize(
    ("target", "headers", "status", "code"),
    [
        ("/v1/" + "x" * 1100, [], 414, "uri_too_long"),
        ("/v1/x", [("X-Long", "y" * 4100)], 431, "headers_too_large"),
        ("/v1/x", [(f"X-{number}", "y" * 40) for number in range(100)], 431, "headers_too_large"),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_heads_too_large(
    stage: Stage, target: str, headers: list[tuple[str, str]], status: int, code: str, bytewise: bool
) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server=LIMITS)
    client = await stage.client(proxy)
    request = request_bytes("GET", target, headers=headers)
    step = 512 if bytewise else len(request)
    for start in range(0, len(request), step):
        client.writer.write(request[start : start + step])
        await asyncio.sleep(0)
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) in {(status, code), (431, "headers_too_large")}
    assert await client.at_end()
    assert not [request for request in engine.requests if request.path.startswith("/v1/x")]


async def test_connections_beyond_the_limit_are_told(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), server={"limits": {"connections": 2}})
    held = [await stage.client(proxy) for _ in range(2)]
    await until(lambda: len(proxy.app.listener.connections) == 2, "two connections")
    third = await stage.client(proxy)
    answer = await third.answer()
    assert (answer.status, answer.json["error"]["code"]) == (503, "too_many_connections")
    assert answer.header("retry-after") == "1"
    assert (await held[0].ask("POST", CHAT, WHOLE)).status == 200
    held[1].leave()
    third.leave()
    await until(lambda: len(proxy.app.listener.connections) == 1, "room again")
    assert (await stage.ask(proxy, WHOLE)).status == 200
    assert proxy.metric("llmproxy_connections_refused_total") == 1


# -- slowness ----------------------------------------------------------------------------------------------------------


def reading(proxy: Proxy) -> bool:
    """Whether the proxy has read the beginning of a request."""
    return any(connection._in_message for connection in proxy.app.listener.connections)


async def test_a_head_must_come_in_time(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    await client.send_raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    await until(lambda: reading(proxy), "the beginning")
    stage.clock.jump(11)
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")


async def test_a_drip_of_header_bytes_does_not_help(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    await client.send_raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    await until(lambda: reading(proxy), "the beginning")
    connection = next(iter(proxy.app.listener.connections))
    for _ in range(3):
        read = connection._head_bytes
        await client.send_raw(b"x")
        await until(lambda read=read: connection._head_bytes > read, "a further byte")
        stage.clock.jump(4)
    assert (await client.answer()).status == 408


async def test_a_body_must_go_on(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    client = await stage.client(proxy)
    await client.send("POST", CHAT, headers=[("Content-Length", "100")])
    for size in (8, 16):
        await client.send_raw(b'{"model"')
        await until(lambda size=size: proxy.handler.buffered == size, "a piece of the body")
        stage.clock.jump(50)
        proxy.app._deadlines.sweep(stage.clock())
    stage.clock.jump(11)
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert proxy.handler.buffered == 0


async def test_idle_connections_are_closed_silently(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    fresh, used = await stage.client(proxy), await stage.client(proxy)
    await until(lambda: len(proxy.app.listener.connections) == 2, "both connections")
    assert (await used.ask("POST", CHAT, WHOLE)).status == 200
    stage.clock.jump(11)
    assert await fresh.at_end()
    assert (await used.ask("POST", CHAT, WHOLE)).status == 200
    stage.clock.jump(76)
    assert await used.at_end()


async def test_running_answers_are_not_idle(stage: Stage) -> None:
    """The client's own deadlines end when its request is whole."""
    engine = await stage.backend(fail="hang")
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(max_tokens=3))
    await until(lambda: engine.in_flight == 1, "the request")
    stage.clock.jump(200)
    proxy.app._deadlines.sweep(stage.clock())
    assert proxy.backend("b1").load.in_flight == 1
    client.leave()


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
