"""The backend's side: one connection, one exchange at a time, the answer handed piece by piece to its relay."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import httptools

from llmproxy.core.outcome import Outcome
from llmproxy.wire.answer_head import AnswerHead
from llmproxy.wire.answer_sink import AnswerSink
from llmproxy.wire.chunks import sole_chunk
from llmproxy.wire.fields import HeaderList

HEAD_MAX_BYTES = 256 * 1024
_EMPTY = (204, 304)
NO_HEAD = AnswerHead([])


class Home(Protocol):
    """The pool a connection belongs to."""

    def opened(self, connection: "UpstreamConnection") -> None:
        """Count it in."""

    def put(self, connection: "UpstreamConnection") -> None:
        """Its exchange ended cleanly: keep it for the next."""

    def closed(self, connection: "UpstreamConnection") -> None:
        """It is gone."""


class UpstreamConnection(asyncio.Protocol):
    """A connection to a backend. Idle when `relay` is None; then any byte from the backend kills it."""

    __slots__ = (
        "_at_boundary",
        "_bodyless",
        "_head_bytes",
        "_keep_alive",
        "_mid_chunk",
        "_parser",
        "_parts",
        "_paused",
        "_pool",
        "_sent",
        "_surplus",
        "chunked",
        "complete",
        "head",
        "head_done",
        "headers",
        "idle_since",
        "on_body",
        "on_chunk_complete",
        "on_chunk_header",
        "on_drain",
        "relay",
        "reused",
        "status",
        "trailers",
        "transport",
        "until_close",
        "write_paused",
    )

    def __init__(self, pool: Home) -> None:
        # Per connection.
        self._pool = pool
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._parts: list[bytes] = []
        # Filled while the parser is inside a chunk. These three are called for every chunk of every stream: bound
        # methods of lists cost a fraction of Python functions.
        self._mid_chunk: list[bool] = []
        self.on_body = self._parts.append
        self.on_chunk_header = partial(self._mid_chunk.append, True)
        self.on_chunk_complete = self._mid_chunk.clear
        self._parser: Any = httptools.HttpResponseParser(self)
        self._paused = False
        self.write_paused = False
        self.on_drain: Callable[[], None] | None = None
        self.relay: AnswerSink | None = None
        self.idle_since = 0.0
        self.reused = False
        self._reset(False)

    def _reset(self, bodyless: bool) -> None:
        # Per exchange.
        self.status = 0
        self.headers: HeaderList = []
        self.trailers: HeaderList = []
        self.head = NO_HEAD
        self.chunked = False
        self.until_close = False
        self.head_done = False
        self.complete = False
        self._bodyless = bodyless
        self._keep_alive = False
        self._at_boundary = False
        self._surplus = False
        self._head_bytes = 0
        self._sent = True
        if self._parts or self._mid_chunk:
            # Left over from bytes behind an answer without a body.
            self._parts.clear()
            self._mid_chunk.clear()

    # -- for the handler -------------------------------------------------------------------------------------------

    def send(self, relay: AnswerSink, request: bytes, body: bytes, *, bodyless: bool, whole: bool = True) -> None:
        """Send a request and hand its answer to `relay`. `bodyless`: the method is HEAD. `whole`: nothing follows."""
        self._reset(bodyless)
        self.relay = relay
        self._sent = whole
        if body and len(body) <= 65536:
            self.transport.write(request + body)
        elif body:
            self.transport.writelines((request, body))
        else:
            self.transport.write(request)

    def send_more(self, data: bytes, *, last: bool = False) -> None:
        """A further piece of a streamed request body, already framed."""
        if data:
            self.transport.write(data)
        if last:
            self._sent = True

    def pause(self) -> None:
        """The client reads slowly: stop taking the answer."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """The client has caught up."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def abort(self) -> None:
        """Give the exchange up and cut the connection, so that the engine stops generating."""
        self.relay = None
        self.on_drain = None
        self.transport.abort()

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._pool.opened(self)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.on_drain is not None:
            self.on_drain()

    def data_received(self, data: bytes) -> None:
        relay = self.relay
        if relay is None:
            # Nobody asked: an answer to nothing could only be taken for the next request's.
            self.transport.abort()
            return
        at_boundary = self._at_boundary
        if at_boundary and (body := sole_chunk(data)):
            # The commonest read by far. The parser stands between two chunks and need not hear of it.
            relay.piece(data, body, True)
            return
        passing = self.head_done
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:
                self.abort()
                relay.lost(Outcome.BAD_RESPONSE)
                return
            self._surplus = True
        if not self.head_done:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self.abort()
                relay.lost(Outcome.BAD_RESPONSE)
            return
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        else:
            body = b""
        if self.complete:
            # The simplest end only: with trailers, or with line ends behind it, the last chunk is written anew.
            whole = at_boundary and not self._surplus and data.endswith(b"0\r\n\r\n")
            self._finish(relay, data, body, whole)
        elif body or not passing:
            # Inside a chunk's size line nothing has been called back yet, but the bytes do not end in CRLF.
            self._at_boundary = self.chunked and not self._mid_chunk and data.endswith(b"\r\n")
            relay.piece(data, body, at_boundary and self._at_boundary)
        else:
            # Nothing but chunk sizes, extensions or trailers.
            self._at_boundary = False
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self.abort()
                relay.lost(Outcome.BAD_RESPONSE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.closed(self)
        relay, self.relay = self.relay, None
        self._parser = None
        self.on_drain = None
        if relay is None:
            return
        if exc is None and self.head_done and self.until_close:
            self.complete = True
            relay.piece(b"", b"", False, last=True)
        else:
            relay.lost(Outcome.RESET)

    # -- httptools -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            # Not even parsed: its body must not be taken for the first one's.
            raise ValueError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:
            self.headers.append((name, value))
        elif not self.complete:
            self.trailers.append((name, value))
            if name.lower() == b"connection":
                # llhttp heeds it even here, and would take no further answer.
                self._keep_alive = False

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        parser = self._parser
        self.status = status = parser.get_status_code()
        if status < 200:
            if status < 100:
                raise ValueError("no such status")
            return
        # llhttp resets its flags later, so this has to be asked here.
        self._keep_alive = parser.should_keep_alive()
        head = self.head = AnswerHead(self.headers)
        self.headers = []
        self.chunked = head.chunked
        if head.is_odd:
            # Its end, and so where the next answer begins, cannot be told.
            raise ValueError("a transfer coding that nobody asked for")
        self.head_done = True
        if self._bodyless or status in _EMPTY:
            self.complete = True
            if self._bodyless:
                # llhttp does not know that this answer has no body and would wait for it.
                self._keep_alive = False
        elif not head.chunked and head.content_length is None:
            self.until_close = True

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete = True
            return
        # An informational answer: relayed at once (never 100, which we asked nothing for), then the real one comes.
        relay = self.relay
        if relay is not None and self.status not in (100, 101):
            relay.informational(self.status, self.headers)
        self.headers = []

    # -- inside ----------------------------------------------------------------------------------------------------

    def _finish(self, relay: AnswerSink, data: bytes, body: bytes, whole: bool) -> None:
        """The answer is complete: free the connection first, so that whoever resumes may use it again."""
        self.relay = None
        self.on_drain = None
        if self._paused:
            # Pooled while paused, it would hang its next user.
            self.resume()
        if self._keep_alive and self._sent and not self._surplus and not self.write_paused:
            self._pool.put(self)
        elif self._sent and not self.write_paused:
            self.transport.close()
        else:
            # It would wait for a backend that does not take the rest of the request.
            self.transport.abort()
        relay.piece(data, b"" if self._bodyless else body, whole, last=True)
