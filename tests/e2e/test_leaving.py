"""A client that leaves, however and whenever, frees its place on the engine at once, and nothing of it stays."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmproxy.emulator import Emulator
from llmproxy.pipeline.exchange import Phase
from tests.harness.client import Client, request_bytes
from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

WAYS: dict[str, Callable[[Client], Any]] = {
    "FIN": lambda client: client.leave(),
    "RST": lambda client: client.leave(reset=True),
    "half-close": lambda client: client.writer.write_eof(),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def leave(request: pytest.FixtureRequest) -> Callable[[Client], Any]:
    return request.param  # type: ignore[no-any-return]


def phases(proxy: Proxy) -> list[Phase]:
    return [c._exchange.phase for c in proxy.app.listener.connections if c._exchange is not None]


async def gone(proxy: Proxy, engine: Emulator | None = None, aborted: int = 1) -> None:
    """Nothing of the request is left anywhere."""
    await proxy.at_rest()
    if engine is not None:
        await until(lambda: engine.in_flight == 0, "a free place on the engine")
        assert engine.aborted == aborted
        assert engine.site.engine.running == engine.site.engine.waiting == 0
        assert engine.site.engine.kv_usage == 0.0


async def abandoned(proxy: Proxy, id: str, status: int = 499) -> dict[str, Any]:
    record = await proxy.record(id)
    assert (record["status"], record["outcome"], record["error"]) == (status, "abandoned", None)
    assert proxy.metric("llmproxy_abandoned_total") == 1
    return record


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", ["hang", "stall", "stall_after=0,comments=5", "stall_after=2"])
async def test_while_the_engine_works(stage: Stage, leave: Callable[[Client], Any], stream: bool, fault: str) -> None:
    engine = await stage.backend(fail=fault)
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(stream=stream), [("X-Request-Id", "left")])
    if stream and fault == "stall_after=2":
        await client.text(await client.head(), 2)
    else:
        await until(lambda: engine.in_flight == 1, "the request")
    leave(client)
    await gone(proxy, engine)
    await abandoned(proxy, "left", 200 if stream and fault == "stall_after=2" else 499)


async def test_in_the_middle_of_a_stream(stage: Stage, leave: Callable[[Client], Any]) -> None:
    engine = await stage.backend(itl_s=0.005)
    proxy = await stage.proxy(engine)
    client, _ = await stage.streaming(proxy, chat(max_tokens=100_000), id="left")
    leave(client)
    await gone(proxy, engine)
    record = await abandoned(proxy, "left", 200)
    assert record["completion_tokens"] >= 1
    assert proxy.connections_to("b1").open == 0


async def test_while_it_waits_for_room(stage: Stage, leave: Callable[[Client], Any]) -> None:
    engine = await stage.backend(fail="hang")
    proxy = await stage.proxy(engine, each={"max_concurrency": 1})
    first, second, third = [await stage.client(proxy) for _ in range(3)]
    for number, client in enumerate((first, second, third)):
        await client.send("POST", CHAT, chat(), [("X-Request-Id", f"r{number}")])
        await until(lambda n=number: engine.received + proxy.pool().queue.waiting == n + 1, "its turn")
    leave(second)
    await until(lambda: proxy.pool().queue.waiting == 1, "a shorter queue")
    assert engine.received == 1
    record = await abandoned(proxy, "r1")
    assert (record["attempts"], record["backend"]) == (0, "none")
    # The place of the first goes to the third, who was behind the one that left.
    leave(first)
    await until(lambda: engine.received == 2 and engine.in_flight == 1, "the third's turn")
    assert engine.state()["received_ids"] == ["r0", "r2"]
    leave(third)
    await gone(proxy, engine, 2)


async def test_while_a_connection_is_made(stage: Stage, leave: Callable[[Client], Any]) -> None:
    backend = await stage.deaf()
    proxy = await stage.proxy(backend)
    await backend.turn_deaf()
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(), [("X-Request-Id", "left")])
    await until(lambda: phases(proxy) == [Phase.CONNECTING], "the connecting")
    leave(client)
    await gone(proxy)
    await abandoned(proxy, "left")
    await until(
        lambda: not [t for t in asyncio.all_tasks() if "ConnectionPool._connect" in repr(t.get_coro())],
        "no connecting task",
    )


async def test_while_it_sends_a_body_that_is_held(stage: Stage, leave: Callable[[Client], Any]) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, headers=[("Content-Length", "100000")])
    await client.send_raw(b"{" + b" " * 50_000)
    await until(lambda: proxy.handler.buffered == 50_001, "half a body")
    leave(client)
    await gone(proxy)
    await until(lambda: not proxy.app.listener.connections, "no connection")
    assert engine.received == 0
    assert await proxy.log() == []


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_while_it_sends_a_body_that_streams_through(
    stage: Stage, leave: Callable[[Client], Any], framing: str
) -> None:
    """The backend must not take what came for the whole."""

    async def script(turn: Turn) -> None:
        raise AssertionError("the request was never whole")

    backend = await stage.scripted(script)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    name, value = framing.split(": ")
    headers = [(name, value), ("Content-Type", "application/octet-stream"), ("X-Request-Id", "left")]
    await client.send("PUT", "/v1/files/x", headers=headers)
    await client.send_raw(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
    await until(lambda: phases(proxy) == [Phase.UPLOADING], "the upload")
    leave(client)
    await gone(proxy)
    await abandoned(proxy, "left")
    await until(lambda: backend.left == 1, "the backend sees the connection end")
    assert backend.turns == []


async def test_while_it_reads_too_slowly(stage: Stage, leave: Callable[[Client], Any]) -> None:
    async def script(turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await turn.chunk(b"x" * 65536)

    backend = await stage.scripted(script)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy, receive_buffer=4096)
    await client.send("POST", "/v1/audio/speech", chat(), [("X-Request-Id", "left")])
    await until(lambda: any(c.write_paused for c in proxy.app.listener.connections), "backpressure")
    if leave is WAYS["half-close"]:
        leave(client)
        await gone(proxy)
        client.leave(reset=True)
    else:
        client.leave(reset=True)
        await gone(proxy)
    await abandoned(proxy, "left", 200)
    await until(lambda: backend.left == 1, "the backend sees the connection end")


async def test_with_requests_waiting_behind_the_one_that_runs(stage: Stage, leave: Callable[[Client], Any]) -> None:
    engine = await stage.backend(fail="hang")
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    await client.send_raw(request_bytes("POST", CHAT, chat(), [("X-Request-Id", "r0")]) * 5)
    await until(
        lambda: engine.in_flight == 1 and proxy.handler.buffered == 5 * len(json.dumps(chat())), "five requests"
    )
    leave(client)
    await gone(proxy, engine)
    assert engine.received == 1


async def test_after_a_broken_request_behind_the_one_that_runs(stage: Stage) -> None:
    """The first is answered, then the second is refused, then the connection ends."""
    engine = await stage.backend(ttft_s=0.05)
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    await client.send_raw(request_bytes("POST", CHAT, chat()) + b"BROKEN\r\n\r\n")
    assert (await client.answer()).events[-1] == "[DONE]"
    assert (await client.answer()).status == 400
    assert await client.at_end()


async def test_the_others_go_on(stage: Stage) -> None:
    """Of forty streams every second client leaves, each in its own way; the others miss nothing."""
    engine = await stage.backend(itl_s=0.005)
    proxy = await stage.proxy(engine)
    lengths = [100_000, 60] * 20
    streams = await asyncio.gather(*(stage.streaming(proxy, chat(max_tokens=length)) for length in lengths))
    ways = list(WAYS.values())
    for number in range(0, 40, 2):
        ways[number // 2 % 3](streams[number][0])

    async def rest(client: Client, answer: Any) -> None:
        await client.rest(answer)
        assert (len(answer.text.split()), answer.events[-1]) == (60, "[DONE]")

    rests: list[Awaitable[None]] = [rest(*stream) for stream in streams[1::2]]
    await asyncio.gather(*rests)
    await gone(proxy, engine, 20)
    assert proxy.metric("llmproxy_abandoned_total") == 20


async def test_a_client_that_closes_behind_its_request_is_gone(stage: Stage) -> None:
    """Request and FIN in one packet."""
    engine = await stage.backend(fail="hang")
    proxy = await stage.proxy(engine)
    client = await stage.client(proxy)
    client.writer.write(request_bytes("POST", CHAT, chat(), [("X-Request-Id", "left")]))
    client.writer.write_eof()
    await until(lambda: not proxy.app.listener.connections, "the connection's end")
    await gone(proxy)
    await abandoned(proxy, "left")
