"""Writing one answer onto a connection: whole, as a stream of chunks, or broken in the ways that faults want."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from llmproxy.emulator.incoming import Incoming

Headers = Iterable[tuple[str, str]]

_SURPLUS = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-type: text/plain\r\n\r\nsurplus"


class Line(Protocol):
    """What a reply needs of the connection it is written on."""

    def write(self, data: bytes) -> None: ...

    def http_date(self) -> str: ...

    def answered(self, reply: Reply) -> None:
        """The answer is complete."""

    def close(self) -> None:
        """Close once everything is written."""

    def reset(self) -> None:
        """RST."""


class Reply:
    """The answer to one request. Everything is ignored once it is over: ended, broken, or the client has left.

    `on_gone` is called when the client leaves before the end. `on_over` is called once, however it ends.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_headless",
        "_started",
        "extra",
        "faulted",
        "on_gone",
        "on_over",
        "over",
        "request",
        "surplus",
    )

    def __init__(self, connection: Line, request: Incoming) -> None:
        self.request = request
        self.extra: list[tuple[str, str]] = []
        """Headers for the head, whoever sends it."""
        self.surplus = False
        self.faulted = False
        """A fault decided how it begins or ends."""
        self.on_gone: Callable[[], None] | None = None
        self.on_over: Callable[[bool], None] | None = None
        """Told whether the client had left."""
        self.over = False
        self._connection = connection
        self._chunked = False
        self._started = False
        self._headless = request.method == "HEAD"

    def json(self, status: int, value: Any, headers: Headers = ()) -> None:
        """A whole JSON answer."""
        self.send(status, "application/json", msgspec.json.encode(value), headers)

    def send(self, status: int, content_type: str, body: bytes, headers: Headers = ()) -> None:
        """A whole answer."""
        if self.over:
            return
        fields = [("content-length", str(len(body))), ("content-type", content_type)]
        head = self._head(status, fields if content_type else fields[:1], headers)
        self._connection.write(head if self._headless else head + body)
        self._end()

    def start(self, content_type: str, headers: Headers = ()) -> None:
        """The 200 head of a stream, sent at once."""
        if self.over or self._started:
            return
        self._started = True
        self._chunked = self.request.version != "1.0"
        fields = [("content-type", content_type)]
        if self._chunked:
            fields.append(("transfer-encoding", "chunked"))
        else:
            self.request.keep_alive = False
        self._connection.write(self._head(200, fields, headers))

    def write(self, pieces: Iterable[bytes]) -> None:
        """Pieces of the body, each a chunk of its own, in one write."""
        if self.over or self._headless:
            return
        if self._chunked:
            pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        self._connection.write(b"".join(pieces))

    def end(self) -> None:
        """The clean end of a stream."""
        if self.over:
            return
        if self._chunked and not self._headless:
            self._connection.write(b"0\r\n\r\n")
        self._end()

    def reset(self) -> None:
        """RST. What was written before goes out first, as far as the client takes it."""
        if not self.over:
            self._finish()
            self._connection.reset()

    def garbage(self) -> None:
        """Bytes that are not HTTP, then the end of the connection."""
        if not self.over:
            self._finish()
            self._connection.write(b"\x16\x03\x01 this is not HTTP\r\n\x00\xff\r\n")
            self._connection.close()

    def cut(self, status: int, content_type: str, body: bytes, kept: int) -> None:
        """A head that announces all of `body`, its first `kept` bytes, and the end of the connection."""
        if self.over:
            return
        fields = [("content-length", str(len(body))), ("content-type", content_type)]
        self._finish()
        self._connection.write(self._head(status, fields, ()) + body[:kept])
        self._connection.close()

    def drop(self) -> None:
        """The server dies: no answer, and not the client's doing."""
        if not self.over:
            self.faulted = True
            undo = self.on_gone
            self._finish()
            if undo is not None:
                undo()

    def gone(self) -> None:
        """The client has left (the connection's call)."""
        if self.over:
            return
        undo = self.on_gone
        self._finish(gone=True)
        if undo is not None:
            undo()

    def _head(self, status: int, fields: Headers, headers: Headers) -> bytes:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {status} {phrase}", f"date: {self._connection.http_date()}", "server: uvicorn"]
        lines += [f"{name}: {value}" for group in (fields, self.extra, headers) for name, value in group]
        if not self.request.keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _end(self) -> None:
        self._finish()
        if self.surplus:
            self._connection.write(_SURPLUS)
        self._connection.answered(self)

    def _finish(self, gone: bool = False) -> None:
        self.over = True
        self.on_gone = None
        on_over, self.on_over = self.on_over, None
        if on_over is not None:
            on_over(gone)
