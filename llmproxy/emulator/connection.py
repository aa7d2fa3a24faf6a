"""One client connection: requests in, in order; answers out; and the client's leaving noticed at once."""

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

import httptools

from llmproxy.emulator.incoming import Incoming
from llmproxy.emulator.reply import Reply

_PIPELINED_MAX = 100


class Door(Protocol):
    """What a connection needs of its server."""

    keepalive_s: float
    body_max_bytes: int

    def opened(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...

    def answer(self, reply: Reply) -> None: ...

    def http_date(self) -> str: ...


class Connection(asyncio.Protocol):
    """Requests are answered one at a time. A FIN counts as leaving, as it does for uvicorn."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        # Per connection.
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Incoming] = deque()
        self._reply: Reply | None = None
        self._answering = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._refused = False
        # Per request being received.
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._keep_alive = True

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._door.opened(self)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        self._stop_idle_timer()
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # Upgrades are not offered; the request itself was complete and is answered.
        except httptools.HttpParserError:
            self._refuse(400, b"Invalid HTTP request received.")
        self._answer_next()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_idle_timer()
        self._leave()
        self._transport = None
        self._door.closed(self)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._body = []
        self._body_bytes = 0

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        # Later llhttp has forgotten it.
        self._keep_alive = self._parser.should_keep_alive()
        if any(name == "expect" and value.lower() == "100-continue" for name, value in self._headers):
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        if self._body_bytes <= self._door.body_max_bytes:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._body_bytes > self._door.body_max_bytes:
            self._refuse(413, b"Request Entity Too Large")
        if self._refused:
            return
        if len(self._waiting) >= _PIPELINED_MAX:
            self._refuse(400, b"Too many pipelined requests.")
            return
        request = Incoming(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
            b"".join(self._body),
            version=self._parser.get_http_version(),
            keep_alive=self._keep_alive,
        )
        self._waiting.append(request)

    # What replies and the server call.

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def http_date(self) -> str:
        return self._door.http_date()

    def answered(self, reply: Reply) -> None:
        """The answer is complete: on to the next request, or to the end of the connection."""
        self._reply = None
        if not reply.request.keep_alive:
            self.close()
            return
        self._await_request()
        self._answer_next()

    @property
    def idle(self) -> bool:
        return self._reply is None and not self._waiting

    def close(self) -> None:
        """Close once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def die(self) -> None:
        """The server dies."""
        self._waiting.clear()
        if self._reply is not None:
            self._reply.drop()
        self.reset()

    def reset(self) -> None:
        """RST."""
        if self._transport is None:
            return
        if not self._transport.is_closing():
            stream = self._transport.get_extra_info("socket")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # Its own business.

    def _answer_next(self) -> None:
        # Answers made at once come back here through `answered`: loop instead of recursing.
        if self._answering:
            return
        self._answering = True
        try:
            while self._reply is None and self._waiting and self._transport and not self._transport.is_closing():
                self._stop_idle_timer()
                reply = self._reply = Reply(self, self._waiting.popleft())
                self._door.answer(reply)
        finally:
            self._answering = False

    def _leave(self) -> None:
        self._waiting.clear()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.gone()

    def _refuse(self, status: int, why: bytes) -> None:
        self._refused = True
        self._waiting.clear()
        if self._reply is None:
            self.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, why.rstrip(b"."), len(why), why)
            )
        self.close()

    def _await_request(self) -> None:
        self._stop_idle_timer()
        self._idle_timer = self._loop.call_later(self._door.keepalive_s, self._idle_out)

    def _idle_out(self) -> None:
        self._idle_timer = None
        if self.idle:
            self.close()

    def _stop_idle_timer(self) -> None:
        timer, self._idle_timer = self._idle_timer, None
        if timer is not None:
            timer.cancel()
