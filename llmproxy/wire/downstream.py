"""The client's side of a connection: parses requests, keeps them in order, and lets the answer flow out.

Phases (each with its own deadline): idle between requests, reading a head, reading a body, an exchange running,
lingering (our last answer is out; what the client still sends is read and thrown away, so that the answer is not
destroyed by a reset), closed.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from llmproxy.core.errors import BadRequest, ProxyError
from llmproxy.wire.deadlines import NEVER, Deadlines
from llmproxy.wire.fields import HeaderList
from llmproxy.wire.inbound import FIELDS_MAX, InboundRequest

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LINGER_S = 2.0
LINGER_BYTES = 1 << 26
_LEFT = frozenset({7, 8})
"""TCP's CLOSE (after a RST) and CLOSE_WAIT (after a FIN), as Linux numbers them."""
PIPELINE_BYTES = 1 << 16
PIPELINE_MAX = 1000


class Exchange(Protocol):
    """A request being answered, as its connection sees it."""

    def abandon(self) -> None:
        """The client left: release everything now."""

    def expired(self, now: float) -> None:
        """The deadline set on the connection has passed."""

    def fail(self, error: ProxyError) -> None:
        """End it with `error`, as well as what is already answered allows."""

    def flow(self, paused: bool) -> None:
        """The client reads too slowly (True) or has caught up (False)."""


class RequestHandler(Protocol):
    """What a connection needs from above."""

    def plan_body(self, request: InboundRequest) -> int:
        """Called on the head. The body's limit in bytes when it is to be read whole, -1 to stream it through.
        Raises `ProxyError` to refuse the request before its body is read."""

    def reserve(self, size: int) -> bool:
        """Count `size` more buffered body bytes; False when the proxy holds too many already."""

    def release(self, size: int) -> None:
        """Give buffered body bytes back."""

    def begin(self, connection: "Downstream", request: InboundRequest) -> Exchange | None:
        """Answer `request` (its body is whole, or streamed). None when it was answered at once."""

    def refuse(self, connection: "Downstream", request: InboundRequest, error: ProxyError) -> None:
        """Answer a request that was refused on the wire."""


class ConnectionSettings:
    """Bounds for client connections, in seconds and bytes; replaced whole on reload."""

    __slots__ = ("body_s", "header_bytes", "header_s", "keepalive_s", "request_line_bytes", "write_s")

    def __init__(
        self,
        header_s: float = 10.0,
        body_s: float = 60.0,
        keepalive_s: float = 75.0,
        write_s: float = 60.0,
        header_bytes: int = 65536,
        request_line_bytes: int = 16384,
    ) -> None:
        self.header_s = header_s
        self.body_s = body_s
        self.keepalive_s = keepalive_s
        self.write_s = write_s
        self.header_bytes = header_bytes
        self.request_line_bytes = request_line_bytes


class Hub(Protocol):
    """What the connections of one listener share."""

    handler: RequestHandler
    settings: ConnectionSettings
    deadlines: Deadlines
    clock: Callable[[], float]
    size_check_bytes: int
    """Reads up to this size cannot hold a head that is too large: the smaller of the two bounds in `settings`."""

    def opened(self, connection: "Downstream") -> bool:
        """Count a connection in; False when there are too many."""

    def closed(self, connection: "Downstream") -> None: ...


class Downstream(asyncio.Protocol):
    """One client connection. The handler writes answers with `write` and ends each with `finish`."""

    __slots__ = (
        "_began",
        "_exchange",
        "_fed",
        "_head_bytes",
        "_headers",
        "_held_bytes",
        "_hub",
        "_idle_at",
        "_in_message",
        "_input_over",
        "_lingered",
        "_parser",
        "_quiet_at",
        "_reading_paused",
        "_request",
        "_stuck",
        "_unread",
        "_unwritten",
        "_url",
        "_waiting",
        "_waiting_bytes",
        "_write_paused",
        "deadline",
        "lingering",
        "peer_ip",
        "tls",
        "transport",
        "write",
    )

    def __init__(self, hub: Hub) -> None:
        # Per connection.
        self._hub = hub
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.write: Callable[[bytes], Any] = _nowhere
        self.peer_ip = ""
        self.tls = False
        self.deadline = NEVER
        self.lingering = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        # A list: rarely more than empty, and an empty deque takes 760 bytes of each connection.
        self._waiting: list[InboundRequest] = []
        self._waiting_bytes = 0
        self._input_over = False
        self._write_paused = False
        self._reading_paused = False
        self._lingered = 0
        self._unwritten = 0
        self._idle_at: float | None = None
        self._stuck: _Stuck | None = None
        self._unread: _Unread | None = None
        # Per request being parsed.
        self._request: InboundRequest | None = None
        self._url = b""
        self._headers: HeaderList = []
        self._held_bytes = 0
        self._in_message = False
        self._began = False
        self._fed = 0
        self._head_bytes = 0
        self._quiet_at = 0

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer_ip = peer[0] if peer else ""
        self.tls = transport.get_extra_info("sslcontext") is not None
        self.write = self.transport.write
        hub = self._hub
        self.deadline = hub.clock() + hub.settings.header_s
        hub.deadlines.add(self)
        if not hub.opened(self):
            self._refuse(ProxyError("too many connections", status=503, code="too_many_connections", retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = NEVER
        self.write = _nowhere
        self._input_over = True
        self._hub.deadlines.discard(self)
        self._forget_stuck()
        self._forget_unread()
        self._hub.closed(self)
        self._drop_body()
        for request in self._waiting:
            self._hub.handler.release(len(request.body))
        self._waiting.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        # The parser refers back to us; without this the pair waits for the garbage collector.
        self._parser = None

    def eof_received(self) -> bool:
        # A client that closes its sending side has left: nobody waits for tokens it can no longer ask for.
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        # What is written already may still go out, if it is taken.
        self.deadline = self._hub.clock() + self._hub.settings.write_s
        return False

    def data_received(self, data: bytes) -> None:
        if self._input_over:
            self._discard(len(data))
            return
        self._began = False
        self._fed = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._go_on(memoryview(data)[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._malformed(error)
        if self._in_message:
            self._still_reading()
        if self._waiting_bytes > PIPELINE_BYTES:
            self._pause_reading()

    def pause_writing(self) -> None:
        self._write_paused = True
        stuck = self._stuck = _Stuck(self, self._hub)
        self._hub.deadlines.add(stuck)
        if self._exchange is not None:
            self._exchange.flow(True)

    def resume_writing(self) -> None:
        self._write_paused = False
        self._forget_stuck()
        if self._exchange is not None:
            self._exchange.flow(False)
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    # -- httptools -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_message = True
        self._began = True
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._input_over:
            return
        hub = self._hub
        request = self._request = InboundRequest(hub.clock())
        parser = self._parser
        try:
            # A head that came in one read is no larger than that, so most requests need no sum.
            if self._fed > hub.size_check_bytes or not self._began:
                self._check_sizes(self._url, self._headers)
            # llhttp resets its flags later, so this has to be asked here.
            request.keep_alive = parser.should_keep_alive()
            request.read_head(parser.get_method(), self._url, parser.get_http_version(), self._headers)
            request.limit = hub.handler.plan_body(request)
        except ProxyError as error:
            self._refuse(error)
            return
        length = request.content_length
        if request.limit < 0:
            request.streamed = True
        elif length is not None and length > request.limit:
            self._refuse(_body_too_large(request.limit))
            return
        if length or request.chunked:
            # What follows are trailers: they end here, and never count as headers (RFC 9110, 6.5.1).
            self._headers = []
            self._quiet_at = -1
            if request.expect_continue and self._exchange is None and not self._waiting:
                request.expect_continue = False
                self.write(CONTINUE)
            if request.streamed:
                self._accept(request)

    def on_body(self, body: bytes) -> None:
        request = self._request
        if request is None or self._input_over:
            return
        size = len(body)
        request.body_bytes += size
        if request.streamed:
            request.parts.append(body)
            return
        if request.body_bytes > request.limit:
            self._refuse(_body_too_large(request.limit))
        elif not self._hub.handler.reserve(size):
            self._refuse(
                ProxyError("the proxy is holding too many request bodies; try again", status=503, code="overloaded",
                           retry_after_s=1)
            )  # fmt: skip
        else:
            self._held_bytes += size
            request.parts.append(body)
            if len(request.parts) > request.loose:
                request.tidy()

    def on_message_complete(self) -> None:
        request = self._request
        if request is not None and request.upgrade and self._has_body_behind(request):
            return
        self._request = None
        self._in_message = False
        if request is None or self._input_over:
            return
        self._held_bytes = 0
        if request.streamed and (request.content_length or request.chunked):
            request.complete = True
            if request.on_body is not None:
                self._hand_on(request)
                request.on_body(b"")
            return
        request.finish_body()
        self._accept(request)

    # -- for the handler -------------------------------------------------------------------------------------------

    @property
    def write_paused(self) -> bool:
        """Whether the client has fallen behind; pause whatever feeds it."""
        return self._write_paused

    @property
    def is_closed(self) -> bool:
        return self.transport.is_closing()

    def pause_body(self) -> None:
        """Stop reading a streamed request body (the backend takes it too slowly)."""
        self._pause_reading()

    def resume_body(self) -> None:
        """Go on reading."""
        if self._reading_paused:
            self._reading_paused = False
            self._forget_unread()
            self.transport.resume_reading()

    def finish(self, request: InboundRequest, keep_alive: bool) -> None:
        """The answer to `request` is written: take the next one, wait for it, or close."""
        self._exchange = None
        if self.transport.is_closing():
            return
        if not keep_alive or (request.streamed and not request.complete):
            self._linger()
            return
        settings = self._hub.settings
        if self._waiting:
            # From the loop, so that a long pipeline cannot recurse.
            asyncio.get_running_loop().call_soon(self._next)
            wait_s = settings.keepalive_s
        elif self._in_message:
            coming = self._request
            wait_s = settings.header_s if coming is None else settings.body_s
            if coming is not None:
                self._invite(coming)
        else:
            wait_s = settings.keepalive_s
        self.deadline = self._hub.clock() + wait_s
        if self._reading_paused and not self._waiting:
            self.resume_body()

    def abort(self) -> None:
        """Cut the connection: the client sees that the answer is not whole."""
        self._exchange = None
        self._input_over = True
        self.transport.abort()

    def close_when_idle(self, now: float, patience_s: float) -> None:
        """Draining: close if nothing has been under way for `patience_s`, as a request may be on its way; else the
        answer says `Connection: close`."""
        if self._exchange is None and not self._waiting and not self._in_message and not self.lingering:
            if self._idle_at is None:
                self._idle_at = now
            if now - self._idle_at >= patience_s:
                self.transport.close()

    def expired(self, now: float) -> None:
        """The deadline has passed (called by the sweep)."""
        if self.lingering:
            unwritten = self.transport.get_write_buffer_size()
            if 0 < unwritten < self._unwritten:
                # Slow, but reading.
                self._unwritten = unwritten
                self.deadline = now + self._hub.settings.write_s
            else:
                self.abort_exchange()
        elif self.transport.is_closing():
            self.transport.abort()
        elif self._exchange is not None:
            self._exchange.expired(now)
        elif self._in_message:
            self._refuse(BadRequest("the request did not arrive in time", code="request_timeout", status=408))
        elif self._write_paused:
            # Not idle: it has yet to take an answer that is written.
            self.deadline = now + self._hub.settings.keepalive_s
        else:
            self.transport.close()

    def give_up(self, error: ProxyError) -> None:
        """What runs ends with `error`; a connection on which nothing runs is closed."""
        exchange = self._exchange
        if exchange is not None:
            exchange.fail(error)
        elif not self.lingering:
            self.transport.close()

    def abort_exchange(self) -> None:
        """The client is stuck: give its exchange up and cut the connection."""
        exchange, self._exchange = self._exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.abandon()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _still_reading(self) -> None:
        """The request is not whole yet: bound its size and its time."""
        if self._input_over:
            return
        hub = self._hub
        request = self._request
        if request is not None:
            self._still_in_body(request)
            return
        if self._began:
            # What was read before it began is not its own.
            self._head_bytes = _head_size(self._url, self._headers)
        else:
            self._head_bytes += self._fed
        if self._head_bytes > hub.settings.header_bytes or len(self._headers) > FIELDS_MAX:
            self._refuse(_head_too_large())
        elif self._began and self._exchange is None:
            self.deadline = hub.clock() + hub.settings.header_s

    def _still_in_body(self, request: InboundRequest) -> None:
        settings = self._hub.settings
        if request.body_bytes != self._quiet_at:
            self._quiet_at = request.body_bytes
            self._head_bytes = 0
            if request.streamed:
                self._hand_on(request)
        else:
            # Nothing but chunk extensions or trailers: bounded like a head.
            self._head_bytes += self._fed
            if self._head_bytes > settings.header_bytes:
                self._refuse(_head_too_large())
                return
        if self._exchange is None:
            self.deadline = self._hub.clock() + settings.body_s

    def _hand_on(self, request: InboundRequest) -> None:
        """Pass a streamed body on, a read's worth at a time; nobody takes it yet: stop reading."""
        if request.on_body is None:
            self._pause_reading()
        elif request.parts:
            body = request.parts[0] if len(request.parts) == 1 else b"".join(request.parts)
            request.parts.clear()
            request.on_body(body)

    def _accept(self, request: InboundRequest) -> None:
        if self._exchange is None and not self._waiting and not self._write_paused:
            self._begin(request)
            return
        self._waiting.append(request)
        self._waiting_bytes += _waiting_size(request)
        if len(self._waiting) > PIPELINE_MAX and not self._input_over:
            self._refuse(BadRequest("too many pipelined requests", code="too_many_requests", status=429))

    def _begin(self, request: InboundRequest) -> None:
        if request.error is not None:
            self._hub.handler.refuse(self, request, request.error)
            self._linger()
            return
        self.deadline = NEVER
        self._exchange = _Starting()
        self._invite(request)
        exchange = self._hub.handler.begin(self, request)
        # It may have been answered, and even the next one begun, before `begin` returned.
        if exchange is not None and isinstance(self._exchange, _Starting):
            self._exchange = exchange

    def _next(self) -> None:
        if self._exchange is None and self._waiting and not self._write_paused and not self.transport.is_closing():
            request = self._waiting.pop(0)
            self._waiting_bytes -= _waiting_size(request)
            if self._reading_paused and not self._waiting and not request.streamed:
                self.resume_body()
            self._begin(request)

    def _invite(self, request: InboundRequest) -> None:
        """A request whose turn has come may send its body."""
        if request.expect_continue:
            request.expect_continue = False
            if not request.body_bytes and not request.complete:
                self.write(CONTINUE)

    def _malformed(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            # Not the client's fault. The loop logs it and closes the connection.
            raise error.__context__ or error
        if not self._input_over:
            self._refuse(_parse_error(error))

    def _has_body_behind(self, request: InboundRequest) -> bool:
        """Whether the parser, seeing `Upgrade`, has let a request end at its head although a body follows."""
        return bool((request.content_length or request.chunked) and self._parser.should_upgrade())

    def _go_on(self, rest: memoryview) -> None:
        """`Upgrade` was asked for and is not granted: the request is taken as plain HTTP/1.1. Go on behind its head."""
        while not self._input_over:
            if self._request is not None:
                self._expect_body(self._request)
            if not rest:
                return
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stop:
                rest = rest[stop.args[0] :]
            except httptools.HttpParserError as error:
                self._malformed(error)
            else:
                return

    def _expect_body(self, request: InboundRequest) -> None:
        """Take a parser that stands behind a head without `Upgrade`, but with the same framing."""
        framing = (
            b"Transfer-Encoding: chunked" if request.chunked else b"Content-Length: %d" % (request.content_length or 0)
        )
        parser = httptools.HttpRequestParser(self)
        self._input_over = True
        parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        self._input_over = False
        self._headers = []
        self._parser = parser

    def _refuse(self, error: ProxyError) -> None:
        """Answer with `error` after what is under way, then close; nothing more is parsed."""
        request = self._request or InboundRequest(self._hub.clock())
        self._request = None
        self._in_message = False
        self._input_over = True
        self._drop_body()
        if request.streamed and request not in self._waiting:
            # The broken body belongs to the exchange that is running; the backend must not see it end.
            self.give_up(error)
            return
        request.keep_alive = False
        request.error = error
        request.parts = []
        if not request.streamed:
            self._accept(request)

    def _drop_body(self) -> None:
        if self._held_bytes:
            self._hub.handler.release(self._held_bytes)
            self._held_bytes = 0

    def _linger(self) -> None:
        self._input_over = True
        self.lingering = True
        self.deadline = self._hub.clock() + LINGER_S
        self._unwritten = self.transport.get_write_buffer_size() + 1
        if self.tls or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.resume_body()
        self.transport.write_eof()

    def _discard(self, size: int) -> None:
        if self.lingering:
            self._lingered += size
            if self._lingered > LINGER_BYTES:
                self.transport.abort()

    def _forget_unread(self) -> None:
        unread, self._unread = self._unread, None
        if unread is not None:
            self._hub.deadlines.discard(unread)

    def _forget_stuck(self) -> None:
        stuck, self._stuck = self._stuck, None
        if stuck is not None:
            self._hub.deadlines.discard(stuck)

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()
            unread = self._unread = _Unread(self)
            self._hub.deadlines.add(unread)

    def _check_sizes(self, url: bytes, headers: HeaderList) -> None:
        settings = self._hub.settings
        if len(url) > settings.request_line_bytes:
            raise BadRequest("the request target is too long", code="uri_too_long", status=414)
        if _head_size(url, headers) > settings.header_bytes:
            raise _head_too_large()


class _Stuck:
    """Watches a client that has fallen behind, whatever else its connection waits for: it must take something within
    each `write` timeout."""

    __slots__ = ("_connection", "_hub", "_unwritten", "deadline")

    def __init__(self, connection: Downstream, hub: Hub) -> None:
        self._connection = connection
        self._hub = hub
        self._unwritten = connection.transport.get_write_buffer_size()
        self.deadline = hub.clock() + hub.settings.write_s

    def expired(self, now: float) -> None:
        unwritten = self._connection.transport.get_write_buffer_size()
        if unwritten < self._unwritten:
            # Slow, but reading.
            self._unwritten = unwritten
            self.deadline = now + self._hub.settings.write_s
        else:
            self._connection.abort_exchange()


class _Unread:
    """Watches a client from which nothing is read for now: that it leaves shows in its connection's state alone, and
    only Linux tells it. Looked at by every sweep."""

    __slots__ = ("_connection", "deadline")

    def __init__(self, connection: Downstream) -> None:
        self._connection = connection
        self.deadline = 0.0

    def expired(self, now: float) -> None:
        link = self._connection.transport.get_extra_info("socket")
        try:
            state = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] if link is not None else 0
        except (OSError, AttributeError):
            return
        if state in _LEFT:
            self._connection.abort_exchange()


class _Starting:
    """Stands for the exchange while the handler is still starting it."""

    def abandon(self) -> None: ...

    def expired(self, now: float) -> None: ...

    def fail(self, error: ProxyError) -> None: ...

    def flow(self, paused: bool) -> None: ...


def _nowhere(data: bytes) -> None:
    """Where an answer goes whose connection is gone."""


def _head_too_large() -> BadRequest:
    return BadRequest("the request's headers are too large", code="headers_too_large", status=431)


def _body_too_large(limit: int) -> BadRequest:
    return BadRequest(f"the request body is larger than {limit} bytes", code="body_too_large", status=413)


def _head_size(url: bytes, headers: HeaderList) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _waiting_size(request: InboundRequest) -> int:
    """What a waiting request costs, in bytes; its body is not there any more when it is streamed."""
    return 1024 + len(request.forward) + len(request.body)


def _parse_error(error: httptools.HttpParserError) -> BadRequest:
    reason = str(error) or type(error).__name__
    if "PRI/Upgrade" in reason:
        return BadRequest("HTTP/2 is not spoken here; use HTTP/1.1", code="http_version", status=505)
    return BadRequest(f"malformed HTTP request: {reason}", code="malformed_request")
