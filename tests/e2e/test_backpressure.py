"""The slower side sets the pace: nobody else is slowed down, and little is held in between."""

import asyncio
from typing import Any

from tests.harness.client import Answer, Client
from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

SPEECH = "/v1/audio/speech"
MIB = 1 << 20
PIECE = bytes(range(256)) * 256
PIECES = 512
"""32 MiB in all: far more than any buffer on the way may hold."""


class Flood:
    """A backend's script that sends as fast as it is taken, and counts how much."""

    def __init__(self, head: bytes = b"Content-Type: audio/mpeg") -> None:
        self.sent = 0
        self._head = head

    async def __call__(self, turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 200 OK\r\n" + self._head + b"\r\nContent-Length: %d\r\n\r\n" % (PIECES * len(PIECE)))
        for _ in range(PIECES):
            await turn.say(PIECE)
            self.sent += len(PIECE)


async def stuck(stage: Stage, proxy: Proxy, flood: Flood) -> tuple[Client, Answer]:
    """A client that has read a head and then stops, once everything behind it has stopped too."""
    client = await stage.client(proxy, receive_buffer=4096)
    await client.send("POST", SPEECH, chat(), [("X-Request-Id", "slow")])
    answer = await client.head()
    before = -1

    def settled() -> bool:
        nonlocal before
        upstream = next(iter(proxy.app.listener.connections))._exchange.relay.connection
        still, before = before == flood.sent > 0, flood.sent
        return bool(upstream._paused) and still

    await until(settled, "backpressure")
    return client, answer


async def read(client: Client, size: int) -> None:
    left = size
    while left:
        got = await asyncio.wait_for(client.reader.read(min(left, MIB)), 20.0)
        assert got
        left -= len(got)


async def test_a_slow_client_pauses_its_own_backend_connection_and_no_other(stage: Stage) -> None:
    flood = Flood()
    backend, engine = await stage.scripted(flood), await stage.backend()
    models = {"emulated": {"pool": "main"}, "speech": {"pool": "flood"}}
    pools = {"flood": {"backends": [{"url": backend.url, "id": "f1"}]}}
    proxy = await stage.proxy(engine, pools=pools, models=models)
    client = await stage.client(proxy, receive_buffer=4096)
    await client.send("POST", SPEECH, {"model": "speech"}, [("X-Request-Id", "slow")])
    answer = await client.head()
    connection = next(iter(proxy.app.listener.connections))
    await until(lambda: connection._exchange.relay.connection._paused, "backpressure")
    # What the kernel's own buffers take is not ours to bound; what the proxy holds is.
    assert connection.transport.get_write_buffer_size() < MIB
    assert (await stage.ask(proxy, chat(max_tokens=20))).events[-1] == "[DONE]"
    assert connection._exchange.relay.connection._paused
    await read(client, int(answer.header("content-length") or 0))
    assert (await proxy.record("slow"))["outcome"] == "ok"
    # Pooled while paused, the connection would hang its next user.
    link = proxy.connections_to("f1", "flood")
    assert (link.open, [c._paused for c in link._idle]) == (1, [False])


async def test_memory_stays_bounded_while_a_client_does_not_read(stage: Stage) -> None:
    flood = Flood()
    backend = await stage.scripted(flood)
    proxy = await stage.proxy(backend)
    client, answer = await stuck(stage, proxy, flood)
    assert flood.sent < PIECES * len(PIECE) / 2
    await read(client, int(answer.header("content-length") or 0))
    await until(lambda: flood.sent == PIECES * len(PIECE), "all of it to be sent")


async def test_a_client_that_does_not_read_is_not_the_backends_silence(stage: Stage) -> None:
    flood = Flood()
    backend = await stage.scripted(flood)
    proxy = await stage.proxy(backend, pool={"timeouts": {"between_bytes": "5s"}})
    client, answer = await stuck(stage, proxy, flood)
    connection = next(iter(proxy.app.listener.connections))
    before = connection.deadline
    stage.clock.jump(30)  # six times `between_bytes`, half of the client's own time
    await until(lambda: connection.deadline > before, "a deadline that was looked at")
    await read(client, int(answer.header("content-length") or 0))
    assert (await proxy.record("slow"))["outcome"] == "ok"


async def test_but_not_for_ever(stage: Stage) -> None:
    flood = Flood()
    backend = await stage.scripted(flood)
    proxy = await stage.proxy(backend)
    client, _ = await stuck(stage, proxy, flood)
    stage.clock.jump(61)
    await until(lambda: not proxy.app.listener.connections, "the end of it")
    await until(lambda: backend.left == 1, "the end of the backend's connection")
    assert (await proxy.record("slow"))["outcome"] == "abandoned"
    client.leave(reset=True)


async def test_slowly_is_fast_enough(stage: Stage) -> None:
    """Taking something within each `write` timeout is enough, however long the whole takes."""
    flood = Flood()
    backend = await stage.scripted(flood)
    proxy = await stage.proxy(backend, server={"timeouts": {"write": "30s"}})
    client, answer = await stuck(stage, proxy, flood)
    left = int(answer.header("content-length") or 0)
    connection = next(iter(proxy.app.listener.connections))
    for _ in range(4):
        watch = connection._stuck
        while connection._stuck is watch and connection.transport.get_write_buffer_size() >= watch._unwritten:
            await read(client, MIB)
            left -= MIB
        await until(lambda: connection._stuck is not None, "backpressure again")
        watch = connection._stuck
        stage.clock.jump(29)
    await read(client, left)
    assert (await proxy.record("slow"))["outcome"] == "ok"


async def upload_stuck(proxy: Proxy) -> Any:
    """The client's connection, once its upload is held up by a backend that does not read."""
    await until(lambda: proxy.app.listener.connections, "the connection")
    connection: Any = next(iter(proxy.app.listener.connections))
    await until(lambda: connection._exchange.relay is not None, "the backend's connection")
    upstream = connection._exchange.relay.connection
    await until(lambda: connection._reading_paused and upstream.write_paused, "backpressure")
    return connection


async def test_a_slow_backend_pauses_the_upload(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await gate.wait()

    gate = asyncio.Event()
    backend = await stage.scripted(script, reads_bodies=False, receive_buffer=4096)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    headers = [("Content-Length", str(32 * MIB)), ("Content-Type", "application/octet-stream")]
    await client.send("PUT", "/v1/files/x", headers=headers)
    for _ in range(32):
        client.writer.write(b"u" * MIB)
    connection = await upload_stuck(proxy)
    upstream = connection._exchange.relay.connection
    assert upstream.transport.get_write_buffer_size() < MIB
    assert proxy.handler.buffered == 0
    # Another one is not slowed down by it.
    assert (await stage.ask(proxy, path="/v1/models")).status == 200
    client.leave(reset=True)
    await proxy.at_rest()
    gate.set()


async def test_an_answer_that_comes_before_the_upload_is_over_passes(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.answer(b'{"error": "too large"}', status="413 Content Too Large")
        await gate.wait()

    gate = asyncio.Event()
    backend = await stage.scripted(script, reads_bodies=False)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    headers = [("Content-Length", str(8 * MIB)), ("Content-Type", "application/octet-stream")]
    await client.send("PUT", "/v1/files/x", headers=headers)
    for _ in range(8):
        client.writer.write(b"u" * MIB)
    answer = await client.answer()
    assert (answer.status, answer.body) == (413, b'{"error": "too large"}')
    assert answer.header("connection") == "close"
    gate.set()


async def test_a_backend_that_does_not_take_the_upload_times_out(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await gate.wait()

    gate = asyncio.Event()
    backend = await stage.scripted(script, reads_bodies=False, receive_buffer=4096)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy)
    headers = [
        ("Content-Length", str(32 * MIB)),
        ("Content-Type", "application/octet-stream"),
        ("X-Request-Id", "stuck"),
    ]
    await client.send("PUT", "/v1/files/x", headers=headers)
    for _ in range(32):
        client.writer.write(b"u" * MIB)
    await upload_stuck(proxy)
    stage.clock.jump(61)
    answer = await client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (504, "timeout")
    # The backend's fault, not the client's.
    assert (await proxy.record("stuck"))["outcome"] == "stalled"
    await until(lambda: backend.left == 1 or not proxy.app.listener.connections, "an end")
    gate.set()


async def test_a_stream_of_events_is_paused_too(stage: Stage) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 20_000 + b'"}}]}\n\n'
    sent = 0

    async def script(turn: Turn) -> None:
        nonlocal sent
        await turn.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2000):
            await turn.chunk(event)
            sent += len(event)
        await turn.say(b"0\r\n\r\n")

    backend = await stage.scripted(script)
    proxy = await stage.proxy(backend)
    client = await stage.client(proxy, receive_buffer=4096)
    await client.send("POST", CHAT, chat())
    answer = await client.head()
    connection = next(iter(proxy.app.listener.connections))
    await until(lambda: connection._exchange.relay.connection._paused, "backpressure")
    assert connection.transport.get_write_buffer_size() < MIB
    count = 0
    while piece := await client.chunk(answer):
        count += len(piece)
        answer.body = answer.wire = b""
    assert count == 2000 * len(event)
