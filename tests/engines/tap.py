"""A tap on the line between the proxy and an engine: it passes everything on and keeps what the engine said."""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Line:
    """One connection. `closed_by` is who ended it: `proxy` or `engine`."""

    said: bytes = b""
    asked: bytes = b""
    closed_by: str | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Tap:
    """`async with Tap(port) as tap:` listens at `tap.url` in front of an engine's port."""

    def __init__(self, port: int) -> None:
        self._engine_port = port
        self.lines: list[Line] = []

    async def __aenter__(self) -> "Tap":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        tasks = [task for line in self.lines for task in line.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def line_with(self, request_id: str) -> Line:
        """The connection over which the request with this id went."""
        found = [line for line in self.lines if request_id.encode() in line.asked]
        assert found, f"{request_id} has not come by"
        return found[0]

    def answer_to(self, request_id: str) -> bytes:
        """The body of the engine's chunked answer to the last request on its connection."""
        line = self.line_with(request_id)
        rest = line.said[line.said.rindex(b"HTTP/1.1 200") :].partition(b"\r\n\r\n")[2]
        body = b""
        while rest != b"0\r\n\r\n":
            size, _, rest = rest.partition(b"\r\n")
            end = int(size, 16)
            body, rest = body + rest[:end], rest[end + 2 :]
        return body

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line()
        self.lines.append(line)
        try:
            engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", self._engine_port)
        except ConnectionError:
            writer.transport.abort()
            return
        line.tasks = [
            asyncio.ensure_future(self._pump(line, "proxy", reader, engine_writer)),
            asyncio.ensure_future(self._pump(line, "engine", engine_reader, writer)),
        ]

    async def _pump(self, line: Line, side: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if side == "engine":
                    line.said += data
                else:
                    line.asked += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            line.closed_by = line.closed_by or side
            writer.close()
