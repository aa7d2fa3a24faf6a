"""A client on one kept connection that notes when each piece of an answer came, and can leave in two ways."""

import asyncio
import json
import socket
import struct
import time
from types import TracebackType
from typing import Any, cast

import httptools

from bench.labs.answer import Answer

CHAT = "/v1/chat/completions"


class Client(asyncio.Protocol):
    """Made with `await Client.open(port)`; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._parser: Any = None
        self._now = 0.0
        self._closing = False

    @classmethod
    async def open(cls, port: int) -> "Client":
        """Raises OSError when there is no connection to be had."""
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    # -- asking ----------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._closing

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request; the answer fills as it arrives."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: 127.0.0.1",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        payload = b""
        if body is not None:
            payload = json.dumps(body).encode()
            lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
        self._parser = httptools.HttpResponseParser(self)
        answer = self._answer = Answer()
        if self._transport is None:
            answer.end(answer.sent_at, cut=True)
        else:
            self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode() + payload)
        return answer

    def chat(
        self, tokens: int, *, stream: bool = True, id: str = "", fault: str = "", prompt: str = "hello", key: str = ""
    ) -> Answer:
        """Ask for an answer of so many tokens. `fault` is what the emulated engine is to do with this request."""
        headers = {"X-Request-Id": id} if id else {}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if fault:
            headers["X-Emulate-Fault"] = fault
        messages = [{"role": "user", "content": prompt}]
        body = {"model": "emulated", "messages": messages, "stream": stream, "max_tokens": tokens}
        return self.send("POST", CHAT, body, headers)

    async def get(self, path: str) -> bytes:
        """The body of a 200. Raises ConnectionError when none comes."""
        answer = self.send("GET", path)
        await answer.over.wait()
        if answer.cut or answer.status != 200:
            raise ConnectionError(f"{path}: status {answer.status}{', cut' if answer.cut else ''}")
        return answer.body

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, by a FIN or by a RST."""
        transport = self._transport
        if transport is None:
            return
        if reset and not transport.is_closing():
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()

    # -- what asyncio calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic()
        if self._answer is None:
            # Nothing was asked: the proxy says why it closes the connection.
            self._closing = True
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.leave()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None:
            self._answer.end(time.monotonic(), cut=True)

    # -- what httptools calls --------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._answer is not None
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._answer is not None
        self._answer.status = self._parser.get_status_code()
        self._closing = not self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        assert self._answer is not None
        self._answer.add(piece, self._now)

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None
        answer.end(self._now, cut=False)
        if self._closing:
            self.leave()
