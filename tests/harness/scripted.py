"""A backend that says exactly what a test has written down, byte by byte, and keeps what it was sent."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType

_PROBED = (b"/health", b"/is_sleeping", b"/is_paused", b"/metrics", b"/v1/models")
_WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_UNKNOWN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Turn:
    """One request and the writing of its answer. `number` counts the requests on its connection from 1."""

    def __init__(self, head: bytes, body: bytes, number: int, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.body = body
        self.number = number
        self._writer = writer
        self.closed = False

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def say(self, data: bytes) -> None:
        """Send bytes, and let a proxy in this process read them before what follows."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the proxy has left")
        self._writer.write(data)
        await self._writer.drain()
        for _ in range(5):
            await asyncio.sleep(0)

    async def chunk(self, data: bytes) -> None:
        await self.say(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self, body: bytes, content_type: str = "application/json", status: str = "200 OK") -> None:
        """A whole answer."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.say(head.encode() + body)

    def close(self) -> None:
        self.closed = True
        self._writer.close()

    def reset(self) -> None:
        """RST."""
        self.closed = True
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Turn], Awaitable[None]]


class Scripted:
    """`async with Scripted(script) as backend:` serves at `backend.url`. Probes are answered well, out of the script's
    sight. With `reads_bodies` off the script is called on the head, and what follows it stays unread."""

    def __init__(
        self,
        script: Script,
        *,
        reads_bodies: bool = True,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.turns: list[Turn] = []
        self.left = 0
        """Connections that the proxy has closed, those of probes not counted."""
        self._script = script
        self._reads_bodies = reads_bodies
        self._receive_buffer = receive_buffer
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def __aenter__(self) -> "Scripted":
        listening = socket.socket()
        if self._receive_buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listening.bind(("127.0.0.1", 0))
        limit = self._receive_buffer or 2**16
        self._server = await asyncio.start_server(self._accept, sock=listening, limit=limit, ssl=self._tls)
        self.port = listening.getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def bodies(self) -> list[bytes]:
        return [turn.body for turn in self.turns]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:
            # It was accepted in the same turn.
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before it began closes nothing.
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                if head.startswith(b"GET") and path.endswith(_PROBED):
                    writer.write(_WELL if path.endswith(b"/health") else _UNKNOWN)
                    continue
                number += 1
                body = await _body(reader, head.lower()) if self._reads_bodies else b""
                turn = Turn(head, body, number, writer)
                self.turns.append(turn)
                await self._script(turn)
                if turn.closed:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += bool(number)
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"\r\ntransfer-encoding: chunked" in head:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return await reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""
