"""One exchange with a backend in memory: an upstream connection, its relay, and a client connection for the answer."""

import asyncio
from typing import Any

import h11

from llmproxy.core.clock import ManualClock
from llmproxy.core.outcome import Outcome
from llmproxy.core.step import Steps
from llmproxy.wire.connections import ConnectionPool
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.relay import DROP, HOLD, PASS, Framing, Relay, Verdict
from llmproxy.wire.upstream import UpstreamConnection
from tests.harness.mock_wire import MockTransport, RecordingHandler, Wire

__all__ = ["DROP", "HOLD", "PASS", "Backend", "Exchange", "Told"]


class Told:
    """A reader that says what the test tells it to. `verdict`: one for every piece, or a function of the piece."""

    def __init__(self, verdict: Any = PASS, end: Any = PASS) -> None:
        self.verdict = verdict
        self.at_end = end
        self.body = b""
        self.ended = False

    def read(self, body: bytes) -> Verdict | bytes:
        assert body
        assert not self.ended
        self.body += body
        verdict: Verdict | bytes = self.verdict(body) if callable(self.verdict) else self.verdict
        return verdict

    def end(self) -> Verdict | bytes:
        assert not self.ended
        self.ended = True
        end: Verdict | bytes = self.at_end() if callable(self.at_end) else self.at_end
        return end


class Backend:
    """A pool of connections to nowhere, and the connections the test makes in it."""

    def __init__(self) -> None:
        self.clock = ManualClock(500.0)
        loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(loop, self.clock)
        self.pool = ConnectionPool("192.0.2.1", 1, loop=loop, clock=self.clock, deadlines=self.deadlines)

    def connect(self) -> MockTransport:
        """A connection, as if it had just been opened."""
        transport = MockTransport(UpstreamConnection(self.pool))
        transport.protocol.connection_made(transport)
        return transport

    @property
    def idle(self) -> int:
        return len(self.pool._idle)

    def assert_clean(self) -> None:
        """Whatever is not idle is gone."""
        assert self.pool.open == self.idle
        for connection in self.pool._idle:
            assert connection.transport.is_reading()
            assert not connection.transport.is_closing()
            assert connection.relay is None


class Exchange:
    """Asks for something and lets the answer flow to a client, as the pipeline does, without its opinions."""

    def __init__(self, transport: MockTransport, reader: Told | None = None, *, method: str = "GET", minor: int = 1):
        self.upstream: UpstreamConnection = transport.protocol
        self.transport = transport
        self.method = method
        self.minor = minor
        self.told = reader or Told()
        self.informed: list[tuple[int, list[tuple[bytes, bytes]]]] = []
        self.wire = Wire(RecordingHandler(later=True))
        self.client = self.wire.connect()
        self.client.protocol.data_received(b"%b / HTTP/1.%d\r\nHost: a\r\n\r\n" % (method.encode(), minor))
        (self.asked,) = self.wire.handler.exchanges
        self.asked.flow = self.flow  # type: ignore[method-assign]
        self.outcome: Outcome | None = None
        self.committed = False
        self.framing: Framing | None = None
        self.relay = Relay(self, self.upstream)
        self.upstream.send(self.relay, b"request", b"", bodyless=method == "HEAD")
        self.steps = Steps(self._story(), self._ended)
        self.steps.resume()

    # -- the relay's owner -----------------------------------------------------------------------------------------

    def answer_begins(self, relay: Relay) -> Told:
        assert relay is self.relay
        return self.told

    def informational(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.informed.append((status, headers))

    def flow(self, paused: bool) -> None:
        self.relay.flow(paused)

    # -- the story -------------------------------------------------------------------------------------------------

    async def _story(self) -> None:
        lost_by = await self.relay.ready
        if lost_by is not None:
            self.outcome = lost_by
            return
        self.commit()
        self.outcome = Outcome.OK if self.relay.ended is None else await self.relay.ended

    def commit(self) -> None:
        head = self.upstream.head
        length = b""
        if self.method == "HEAD" or self.upstream.status in (204, 304):
            self.framing = Framing.NONE
        elif self.relay.complete:
            self.framing, length = Framing.LENGTH, b"Content-Length: %d\r\n" % len(self.relay.held)
        elif head.content_length is not None and isinstance(self.told.verdict, Verdict):
            self.framing, length = Framing.LENGTH, b"Content-Length: %d\r\n" % head.content_length
        elif self.minor:
            self.framing, length = Framing.CHUNKED, b"Transfer-Encoding: chunked\r\n"
        else:
            self.framing = Framing.CLOSE
        self.committed = True
        self.client_head = b"HTTP/1.1 %d \r\n%b\r\n" % (self.upstream.status, length)
        self.relay.commit(self.client.protocol, self.client_head, self.framing)

    def _ended(self, error: BaseException | None) -> None:
        if error is not None:
            raise error
        self.relay.abort()
        if self.committed and self.outcome is Outcome.OK:
            self.client.protocol.finish(self.asked.request, self.framing is not Framing.CLOSE)

    # -- what came of it -------------------------------------------------------------------------------------------

    @property
    def told_client(self) -> bytes:
        """The body as the client reads it, which must be whole, with nothing behind it."""
        return self.read_by_client()[0]

    def read_by_client(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Body and trailers, as h11 reads them."""
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=self.method, target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(bytes(self.client.sent))
        if self.client.eof_written:
            reader.receive_data(b"")
        body = b""
        event = reader.next_event()
        assert isinstance(event, h11.Response), event
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage), event
        assert reader.trailing_data[0] == b""
        return body, list(event.headers)

    @property
    def raw(self) -> bytes:
        """What the client got behind the head, byte for byte."""
        return bytes(self.client.sent[len(self.client_head) :])
