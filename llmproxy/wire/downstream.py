"""The client's side of a connection: requests take their turns, and each is given to the handler to be answered.

Phases (each with its own deadline): idle between requests, reading a head, reading a body, an exchange running,
lingering (`linger.py`), closed.
"""

import asyncio

from llmproxy.core.errors import ProxyError
from llmproxy.wire import refusals
from llmproxy.wire.contracts import Exchange, Hub
from llmproxy.wire.deadlines import NEVER
from llmproxy.wire.inbound import InboundRequest
from llmproxy.wire.intake import Intake
from llmproxy.wire.linger import LINGER_S, Linger

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PIPELINE_BYTES = 1 << 16
PIPELINE_MAX = 1000


class Downstream(Intake):
    """One client connection: the uppermost of its three layers."""

    __slots__ = ("_exchange", "_idle_at", "_linger", "_waiting", "_waiting_bytes")

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._exchange: Exchange | None = None
        # A list: rarely more than empty, and an empty deque takes 760 bytes of each connection.
        self._waiting: list[InboundRequest] = []
        self._waiting_bytes = 0
        self._idle_at: float | None = None
        self._linger: Linger | None = None

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer_ip = peer[0] if peer else ""
        self.tls = transport.get_extra_info("sslcontext") is not None
        hub = self._hub
        self.deadline = hub.clock() + hub.settings.header_s
        hub.deadlines.add(self)
        if not hub.opened(self):
            self._refuse(refusals.too_many_connections())

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = NEVER
        super().connection_lost(exc)
        self._hub.deadlines.discard(self)
        self._hub.closed(self)
        self._end_input()
        for request in self._waiting:
            self._hub.handler.release(request.held)
        self._waiting.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

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
            if self._linger is not None:
                self._linger.discard(len(data))
            return
        self._feed(data)
        if self._waiting_bytes > PIPELINE_BYTES:
            self.pause_body()

    # -- for the handler -------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> object | None:
        return self._exchange

    def finish(self, request: InboundRequest, keep_alive: bool) -> None:
        self._exchange = None
        if self.transport.is_closing():
            return
        if not keep_alive or (request.streamed and not request.complete):
            self._begin_linger()
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
        self._exchange = None
        self._input_over = True
        self.transport.abort()

    # -- for the listener, and the sweep ---------------------------------------------------------------------------

    def close_when_idle(self, now: float, patience_s: float) -> None:
        if self._exchange is None and not self._waiting and not self._in_message and self._linger is None:
            if self._idle_at is None:
                self._idle_at = now
            if now - self._idle_at >= patience_s:
                self.transport.close()

    def expired(self, now: float) -> None:
        """The deadline has passed (called by the sweep)."""
        if self._linger is not None:
            if self._linger.has_moved():
                # Slow, but reading.
                self.deadline = now + self._hub.settings.write_s
            else:
                self.abort_exchange()
        elif self.transport.is_closing():
            self.transport.abort()
        elif self._exchange is not None:
            self._exchange.expired(now)
        elif self._in_message:
            self._refuse(refusals.too_slow())
        elif self._write_paused:
            # Not idle: it has yet to take an answer that is written.
            self.deadline = now + self._hub.settings.keepalive_s
        else:
            self.transport.close()

    def give_up(self, error: ProxyError) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.fail(error)
        elif self._linger is None:
            self.transport.close()

    def abort_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.abandon()

    # -- for the layers below --------------------------------------------------------------------------------------

    def _flow(self, paused: bool) -> None:
        if self._exchange is not None:
            self._exchange.flow(paused)
        elif not paused and self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    def _accept(self, request: InboundRequest) -> None:
        if self._exchange is None and not self._waiting and not self._write_paused:
            self._begin(request)
            return
        self._waiting.append(request)
        self._waiting_bytes += _waiting_size(request)
        if len(self._waiting) > PIPELINE_MAX and not self._input_over:
            self._refuse(refusals.too_many_waiting())

    def _refused(self, request: InboundRequest, error: ProxyError) -> None:
        if request.streamed and request not in self._waiting:
            # The broken body belongs to the exchange that is running; the backend must not see it end.
            self.give_up(error)
            return
        request.keep_alive = False
        request.error = error
        request.parts = []
        self._hub.handler.release(request.held)
        request.held = 0
        if not request.streamed:
            self._accept(request)

    def _expects(self, request: InboundRequest) -> None:
        if self._exchange is None and not self._waiting:
            self._invite(request)

    def _more_within(self, wait_s: float) -> None:
        if self._exchange is None:
            self.deadline = self._hub.clock() + wait_s

    # -- turns -----------------------------------------------------------------------------------------------------

    def _begin(self, request: InboundRequest) -> None:
        if request.error is not None:
            self._hub.handler.refuse(self, request, request.error)
            self._begin_linger()
            return
        self.deadline = NEVER
        self._exchange = _Starting()
        self._invite(request)
        exchange = self._hub.handler.begin(self, request)
        # It may have been answered, and even the next one begun, before `begin` returned.
        if exchange is not None and isinstance(self._exchange, _Starting):
            self._exchange = exchange

    def _next(self) -> None:
        if self._exchange is not None or self._write_paused or self._linger is not None or self.transport.is_closing():
            return
        if self._waiting:
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

    def _begin_linger(self) -> None:
        self._input_over = True
        self._linger = Linger(self.transport)
        self.deadline = self._hub.clock() + LINGER_S
        if self.tls or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.resume_body()
        self.transport.write_eof()


class _Starting:
    """Stands for the exchange while the handler is still starting it."""

    def abandon(self) -> None: ...

    def expired(self, now: float) -> None: ...

    def fail(self, error: ProxyError) -> None: ...

    def flow(self, paused: bool) -> None: ...


def _waiting_size(request: InboundRequest) -> int:
    """What a waiting request costs, in bytes; its body is not there any more when it is streamed."""
    return 1024 + len(request.forward) + len(request.body)
