"""Listens, and keeps the set of client connections."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from llmproxy.core.errors import ProxyError
from llmproxy.wire.client import ClientConnection
from llmproxy.wire.contracts import RequestHandler
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.downstream import Downstream
from llmproxy.wire.settings import ConnectionSettings

_BACKLOG: Final = 65535
"""Thousands of clients may arrive in one instant: the kernel's own bound (somaxconn) is the only one wanted."""


class Listener:
    """The public port. `listen`, then `accept`, then `stop_accepting` and `drained` as the last connections end."""

    def __init__(
        self,
        handler: RequestHandler,
        *,
        deadlines: Deadlines,
        clock: Callable[[], float],
        settings: ConnectionSettings,
        max_connections: int = 20000,
    ) -> None:
        self.handler = handler
        self.deadlines = deadlines
        self.clock = clock
        self.max_connections = max_connections
        self.connections: set[ClientConnection] = set()
        self.accepted = 0
        self.refused = 0
        self.configure(settings)
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None

    def configure(self, settings: ConnectionSettings) -> None:
        """Replace the bounds for requests that come from now on."""
        self.settings = settings
        self.size_check_bytes = min(settings.header_bytes, settings.request_line_bytes)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Take the port; whoever comes waits until `accept`. Raises OSError (address in use, no permission)."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Downstream(self), host, port, ssl=tls, backlog=_BACKLOG, start_serving=False
        )
        try:
            for bound in server.sockets:
                with bound.dup() as one:
                    one.listen(_BACKLOG)
        except BaseException:
            server.close()
            raise
        self._server, self._tls = server, tls

    async def accept(self) -> None:
        """Serve those who came and who come."""
        if self._server is not None:
            await self._server.start_serving()

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None or not self._server.sockets:
            return 0
        return int(self._server.sockets[0].getsockname()[1])

    async def stop_accepting(self) -> None:
        """Close the listening socket; connections go on, and so do those that the kernel alone has accepted yet."""
        server, self._server = self._server, None
        if server is None:
            return
        listening = [one.dup() for one in server.sockets]
        server.close()
        accepted = []
        for one in listening:
            with one:
                accepted += _accept_all(one)
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.connect_accepted_socket(lambda: Downstream(self), one, ssl=self._tls) for one in accepted),
            return_exceptions=True,
        )

    def close_idle(self, patience_s: float = 0.0) -> None:
        """Close connections with nothing under way, once that has been so for `patience_s` of asking."""
        now = self.clock()
        for connection in tuple(self.connections):
            connection.close_when_idle(now, patience_s)

    def give_up_all(self, error: ProxyError) -> None:
        """End what is left with `error`."""
        for connection in tuple(self.connections):
            connection.give_up(error)

    def abort_all(self) -> None:
        """Cut what is left."""
        for connection in tuple(self.connections):
            connection.abort_exchange()

    # -- for connections -------------------------------------------------------------------------------------------

    def opened(self, connection: ClientConnection) -> bool:
        self.connections.add(connection)
        self.accepted += 1
        if len(self.connections) > self.max_connections:
            self.refused += 1
            return False
        return True

    def closed(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    """The connections that wait to be accepted."""
    listening.setblocking(False)
    accepted: list[socket.socket] = []
    try:
        while True:
            connection, _ = listening.accept()
            connection.setblocking(False)
            accepted.append(connection)
    except OSError:
        # No more of them, or no more descriptors.
        return accepted
