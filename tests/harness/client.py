"""A client that shows every byte: HTTP/1.1 written and read by hand, with all the ways of leaving."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Headers = Iterable[tuple[str, str]]

PATIENCE_S = 20.0
"""Longest wait for any one thing to be read: a test that hangs says so."""


@dataclass
class Answer:
    """An answer as it came. `wire` is the body as it was framed; `cut` says that the connection ended inside it."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    head: bytes
    body: bytes = b""
    wire: bytes = b""
    cut: bool = False
    trailers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The first value of header `name`."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        return events(self.body)

    @property
    def text(self) -> str:
        """What a chat or completions stream says."""
        return spoken(self.events)


def events(body: bytes) -> list[Any]:
    """The data of an event-stream's events, decoded, `[DONE]` as it is; comments are left out."""
    found: list[Any] = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].lstrip() for line in block.split("\n") if line.startswith("data:"))
        if data:
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


def spoken(found: Iterable[Any]) -> str:
    """The text in the events of a chat or completions stream."""
    text = ""
    for event in found:
        for choice in event.get("choices", ()) if isinstance(event, dict) else ():
            text += choice["delta"].get("content") or "" if "delta" in choice else choice.get("text", "")
    return text


def request_bytes(
    method: str, path: str, body: Any = None, headers: Headers = (), *, version: str = "1.1", host: str = "proxy.test"
) -> bytes:
    """A request with a body that is bytes, or a value to be sent as JSON."""
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}"]
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        lines.append("Content-Type: application/json")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


class Client:
    """One connection. Use `open`; `send` and `answer` may alternate, or be pipelined."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int | None = None, tls: ssl.SSLContext | None = None) -> "Client":
        """Connect. A small `receive_buffer` makes a client that falls behind as soon as it stops reading."""
        if receive_buffer is None:
            return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=plain, limit=receive_buffer))

    async def send(self, method: str, path: str, body: Any = None, headers: Headers = (), **options: Any) -> None:
        await self.send_raw(request_bytes(method, path, body, headers, **options))

    async def send_raw(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), PATIENCE_S)

    async def head(self) -> Answer:
        """The next answer's head, those of 1xx answers before it noted."""
        informational: list[int] = []
        while True:
            head = await self._within(self.reader.readuntil(b"\r\n\r\n"))
            status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
            _, status, *reason = status_line.split(" ", 2)
            fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            if not 100 <= int(status) < 200:
                return Answer(int(status), "".join(reason), fields, head, informational=informational)
            informational.append(int(status))

    async def answer(self, *, bodyless: bool = False) -> Answer:
        """The next answer, whole, or as much as came of it (`cut`). `bodyless`: it answers a HEAD."""
        answer = await self.head()
        if not bodyless and answer.status not in (204, 304):
            await self.rest(answer)
        return answer

    async def rest(self, answer: Answer) -> Answer:
        """The rest of an answer's body, or as much as comes of it (`cut`)."""
        try:
            if "chunked" in (answer.header("transfer-encoding") or ""):
                while await self.chunk(answer):
                    pass
            elif (length := answer.header("content-length")) is not None:
                answer.wire = answer.body = await self._within(self.reader.readexactly(int(length)))
            else:
                answer.wire = answer.body = await self._within(self.reader.read())
        except asyncio.IncompleteReadError as error:
            answer.cut = True
            answer.wire += error.partial
        except ConnectionError:
            answer.cut = True
        return answer

    async def chunk(self, answer: Answer) -> bytes:
        """The next chunk of a chunked body, added to `answer`; empty after the last one."""
        line = await self._within(self.reader.readuntil(b"\r\n"))
        answer.wire += line
        size = int(line.split(b";")[0], 16)
        if size:
            data = await self._within(self.reader.readexactly(size + 2))
            assert data.endswith(b"\r\n")
            answer.wire += data
            answer.body += data[:-2]
            return data[:-2]
        while (line := await self._within(self.reader.readuntil(b"\r\n"))) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            answer.trailers.append((name, value.strip()))
            answer.wire += line
        answer.wire += line
        return b""

    async def text(self, answer: Answer, pieces: int = 1) -> None:
        """Read on until a stream has said at least `pieces` words."""
        while len(answer.text.split()) < pieces:
            assert await self.chunk(answer), f"ended too early: {answer.body!r}"

    async def ask(self, method: str, path: str, body: Any = None, headers: Headers = (), **options: Any) -> Answer:
        """Send a request and read its answer."""
        await self.send(method, path, body, headers, **options)
        return await self.answer(bodyless=method == "HEAD")

    async def at_end(self) -> bool:
        """Whether the other side closes now, having sent nothing more."""
        try:
            return await self._within(self.reader.read(1)) == b""
        except ConnectionError:
            return True

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection: by a FIN, or by a RST."""
        if reset and not self.writer.transport.is_closing():
            connection = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()

    async def _within(self, reading: Any) -> Any:
        return await asyncio.wait_for(reading, PATIENCE_S)
