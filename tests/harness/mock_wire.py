"""The wire without sockets: a transport that records, a handler that notes what it was given, and a client's side."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11

from llmproxy.core.clock import ManualClock
from llmproxy.core.errors import ProxyError
from llmproxy.pipeline.answer import error_answer
from llmproxy.pipeline.routes import Dialect
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.downstream import Downstream
from llmproxy.wire.inbound import InboundRequest
from llmproxy.wire.listener import Listener
from llmproxy.wire.settings import ConnectionSettings

HIGH_WATER = 65536


class MockTransport(asyncio.Transport):
    """Records what is written. While `stuck`, nothing leaves and the buffer fills, as with a peer that does not read.
    `connection_lost` comes from the loop, as with real ones."""

    def __init__(self, protocol: Any, **extra: Any) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711), **extra})
        self.protocol = protocol
        self.sent = bytearray()
        self.writes: list[bytes] = []
        self.buffer = bytearray()
        self.stuck = False
        self.reading = True
        self.eof_written = False
        self.aborted = False
        self.lost = False
        self._closing = False
        self._writing_paused = False
        self._high_water = HIGH_WATER

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_water = HIGH_WATER if high is None else high

    def write(self, data: Any) -> None:
        assert not self.eof_written, "written after the end"
        if self._closing:
            return
        assert data, "an empty write"
        self.writes.append(bytes(data))
        self.buffer += data
        self._move()
        if len(self.buffer) > self._high_water and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def drain(self, size: int | None = None) -> None:
        """The peer reads `size` bytes of what waits, or from now on everything."""
        if size is None:
            self.stuck = False
            size = len(self.buffer)
        self.sent += self.buffer[:size]
        del self.buffer[:size]
        if self._writing_paused and len(self.buffer) <= self._high_water // 4:
            self._writing_paused = False
            self.protocol.resume_writing()
        self._move()

    def _move(self) -> None:
        if not self.stuck:
            self.sent += self.buffer
            self.buffer.clear()
        if self._closing and not self.buffer and not self.lost:
            asyncio.get_running_loop().call_soon(self.lose)

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def can_write_eof(self) -> bool:
        return self.get_extra_info("sslcontext") is None

    def write_eof(self) -> None:
        self.eof_written = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._move()

    def abort(self) -> None:
        self.aborted = True
        self._closing = True
        self.buffer.clear()
        self._move()

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone: by our own doing, a FIN that was answered, or (with an error) a RST."""
        self._closing = True
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed while reading"
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading


class MockExchange:
    """A request under way, for as long as the test likes."""

    def __init__(self, handler: "RecordingHandler", connection: Downstream, request: InboundRequest) -> None:
        self.handler = handler
        self.connection = connection
        self.request = request
        self.abandoned = False
        self.expirations: list[float] = []
        self.flows: list[bool] = []

    def abandon(self) -> None:
        assert not self.abandoned
        self.abandoned = True
        self.handler.forget(self.request)

    def expired(self, now: float) -> None:
        self.expirations.append(now)

    def fail(self, error: ProxyError) -> None:
        self.handler.failures.append(error)
        self.connection.abort_exchange()

    def flow(self, paused: bool) -> None:
        self.flows.append(paused)

    def answer(self, body: bytes = b"", *, keep_alive: bool | None = None) -> None:
        """Write a whole answer and end."""
        self.handler.answer(self.connection, self.request, body, keep_alive)


@dataclass
class Seen:
    """A request as the handler had it when it was whole."""

    method: bytes
    target: bytes
    host: bytes
    headers: list[tuple[bytes, bytes]]
    forward: bytes
    body: bytes
    minor: int
    keep_alive: bool


@dataclass
class RecordingHandler:
    """Notes every request. Answers at once, or (`later`) leaves that to the test. `limit`: bytes, -1, or an error."""

    later: bool = False
    limit: int | ProxyError = 1 << 20
    cap: int = 1 << 30
    buffered: int = 0
    seen: list[Seen] = field(default_factory=list)
    refused: list[ProxyError] = field(default_factory=list)
    exchanges: list[MockExchange] = field(default_factory=list)
    failures: list[ProxyError] = field(default_factory=list)
    """What exchanges under way were ended with."""
    cut: list[bytes] = field(default_factory=list)

    def plan_body(self, request: InboundRequest) -> int:
        if isinstance(self.limit, ProxyError):
            raise self.limit
        return self.limit

    def reserve(self, size: int) -> bool:
        if self.buffered + size > self.cap:
            return False
        self.buffered += size
        return True

    def release(self, size: int) -> None:
        self.buffered -= size
        assert self.buffered >= 0

    def begin(self, connection: Downstream, request: InboundRequest) -> MockExchange | None:
        exchange = MockExchange(self, connection, request)
        if request.streamed and not request.complete:
            self._follow(exchange)
            return exchange
        return self._whole(exchange, request.body or b"".join(request.parts))

    def _whole(self, exchange: MockExchange, body: bytes) -> MockExchange | None:
        request = exchange.request
        self.seen.append(
            Seen(
                request.method,
                request.target,
                request.host,
                list(request.headers),
                request.forward,
                body,
                request.minor,
                request.keep_alive,
            )
        )
        if self.later:
            self.exchanges.append(exchange)
            return exchange
        self.answer(exchange.connection, request, request.target, None)
        return None

    def _follow(self, exchange: MockExchange) -> None:
        pieces = exchange.request.parts
        exchange.request.parts = []

        def piece(body: bytes) -> None:
            if body:
                pieces.append(body)
            else:
                self._whole(exchange, b"".join(pieces))

        exchange.request.on_body = piece
        exchange.connection.resume_body()

    def answer(self, connection: Downstream, request: InboundRequest, body: bytes, keep_alive: bool | None) -> None:
        keep_alive = request.keep_alive if keep_alive is None else keep_alive
        end = b"" if keep_alive else b"Connection: close\r\n"
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), end, body))
        self.forget(request)
        connection.finish(request, keep_alive)

    def forget(self, request: InboundRequest) -> None:
        self.release(len(request.body))
        request.body = b""

    def refuse(self, connection: Downstream, request: InboundRequest, error: ProxyError) -> None:
        assert not request.keep_alive
        self.refused.append(error)
        connection.write(error_answer(error, Dialect.OPENAI, keep_alive=False, minor=request.minor))


class Wire:
    """A listener, and client connections to it that exist in memory only. Needs a running loop."""

    def __init__(self, handler: RecordingHandler | None = None, **settings: Any) -> None:
        self.clock = ManualClock(1000.0)
        self.handler = handler or RecordingHandler()
        self.deadlines = Deadlines(asyncio.get_running_loop(), self.clock)
        max_connections = settings.pop("max_connections", 10)
        self.listener = Listener(
            self.handler,
            deadlines=self.deadlines,
            clock=self.clock,
            settings=ConnectionSettings(**settings),
            max_connections=max_connections,
        )

    def connect(self, **extra: Any) -> MockTransport:
        """A client connects: the transport's `protocol` is our side."""
        down = Downstream(self.listener)
        transport = MockTransport(down, **extra)
        down.connection_made(transport)
        return transport

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and let the sweep look."""
        self.deadlines.sweep(self.clock.advance(seconds))

    def assert_clean(self) -> None:
        """Nobody is connected any more: nothing may be left."""
        assert not self.listener.connections
        assert len(self.deadlines) == 0
        assert self.handler.buffered == 0


async def settle() -> None:
    """Let everything that is due run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def feed(transport: MockTransport, *pieces: bytes) -> None:
    """The peer sends. What cannot be delivered, because the connection is closing, is lost."""
    for piece in pieces:
        if piece and not transport.is_closing():
            transport.protocol.data_received(piece)
        await settle()


async def hang_up(transport: MockTransport) -> None:
    """The peer sends FIN; unless our side wants to go on, that is the end."""
    if not transport.lost and not transport.protocol.eof_received():
        transport.close()
        transport.drain()
    await settle()
    assert transport.lost


def answers(data: bytes, methods: list[bytes]) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """The answers in `data`, read by h11: status, headers, body; 1xx ones are left out. Fails on anything else."""
    found: list[tuple[int, dict[bytes, bytes], bytes]] = []
    for method in methods:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        body, head = b"", None
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.InformationalResponse), event
        assert head is not None
        found.append((head.status_code, dict(head.headers), body))
        data = client.trailing_data[0]
    assert data == b"", f"something behind the last answer: {data[:100]!r}"
    return found


def assert_refused(data: bytes, statuses: Callable[[int], bool] = lambda status: 400 <= status < 600) -> int:
    """One error answer as the proxy makes them, and nothing else. Returns its status."""
    (status, headers, body), *more = answers(data, [b"POST"])
    assert not more
    assert statuses(status), status
    assert headers[b"connection"] == b"close"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-llmproxy-error"]
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    return status
