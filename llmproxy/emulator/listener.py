"""The listening socket, which can be opened and closed again on the same port while the server lives."""

import asyncio
import socket
from collections.abc import Callable

_BACKLOG = 4096


class Listener:
    """The port is bound from the start and kept until `release`, but connections are refused unless `open` was called.

    A second socket that never listens holds the port, so that no one else can take it in between.
    """

    def __init__(self, host: str, port: int, factory: Callable[[], asyncio.Protocol]) -> None:
        self.host = host
        self._factory = factory
        self._server: asyncio.Server | None = None
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._holder = self._bind(port)
        self.port: int = self._holder.getsockname()[1]

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def open(self) -> None:
        if self._server is not None:
            return
        listening = self._bind(self.port)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._factory, sock=listening, backlog=_BACKLOG)

    def close(self) -> None:
        """Stop listening; open connections stay."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def release(self) -> None:
        self.close()
        self._holder.close()

    def _bind(self, port: int) -> socket.socket:
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.host, port))
        except OSError:
            bound.close()
            raise
        return bound
