"""What a client may cost: how large and how slow its requests may be, and how many connections there are."""

import asyncio
import json

import pytest

from tests.harness.client import request_bytes
from tests.harness.proxy import Proxy
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

WHOLE = chat(stream=False, max_tokens=2)
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
