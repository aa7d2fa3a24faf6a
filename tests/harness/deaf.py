"""A backend that is well when probed, and to which connections then hang in the making, as to a host that is gone."""

import asyncio
import socket
from types import TracebackType

_WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Deaf:
    """`async with Deaf() as backend:` answers every connection with 200 until `turn_deaf`."""

    def __init__(self) -> None:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.setblocking(False)
        # The shortest queue there is: one connection waits to be accepted, and further ones get no answer at all.
        self._listening.listen(0)
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._task: asyncio.Task[None] | None = None
        self._fillers: list[socket.socket] = []

    async def __aenter__(self) -> "Deaf":
        self._task = asyncio.ensure_future(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        for one in (*self._fillers, self._listening):
            one.close()

    async def turn_deaf(self) -> None:
        """Accept no more, and let the queue be full."""
        await self._stop()
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._listening)
            with accepted:
                await loop.sock_recv(accepted, 4096)
                await loop.sock_sendall(accepted, _WELL)
