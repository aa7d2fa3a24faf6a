"""A backend's keep-alive connections: most recently used first, retired before the backend would close them."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence

from llmproxy.core.outcome import Outcome
from llmproxy.core.step import Signal
from llmproxy.wire.deadlines import NEVER, Deadlines
from llmproxy.wire.upstream import UpstreamConnection

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> addresses to try, in order. Raises OSError."""


class UpstreamLost(Exception):
    """No connection, or none any more."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class ConnectionPool:
    """Connections to one address. Bare bookkeeping is synchronous; only `connect` takes time."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        deadlines: Deadlines,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        connect_s: float = 5.0,
        keepalive_s: float = 4.0,
    ) -> None:
        self._host = host
        self._port = port
        self._loop = loop
        self._clock = clock
        self._deadlines = deadlines
        self._resolve = resolve
        self._tls = tls
        self._server_name = server_name or host
        self.connect_s = connect_s
        self.keepalive_s = keepalive_s
        self._idle: list[UpstreamConnection] = []
        self._closed = False
        self.deadline = NEVER
        self.connects = 0
        self._open: set[UpstreamConnection] = set()
        deadlines.add(self)

    def __repr__(self) -> str:
        return f"<ConnectionPool open={self.open} idle={len(self._idle)}>"

    @property
    def open(self) -> int:
        """How many connections there are, idle or in use."""
        return len(self._open)

    def take(self) -> UpstreamConnection | None:
        """A usable idle connection, or None."""
        idle = self._idle
        oldest_ok = self._clock() - self.keepalive_s
        while idle:
            connection = idle.pop()
            if connection.idle_since >= oldest_ok and not connection.transport.is_closing():
                connection.reused = True
                return connection
            connection.abort()
        return None

    def put(self, connection: UpstreamConnection) -> None:
        """An exchange ended cleanly: keep its connection."""
        if self._closed:
            connection.transport.close()
            return
        connection.idle_since = now = self._clock()
        self._idle.append(connection)
        if self.deadline == NEVER:
            self.deadline = now + self.keepalive_s

    def connect(self) -> "Connecting":
        """Begin to open a connection."""
        self.connects += 1
        return Connecting(self._loop.create_task(self._connect()))

    def close(self) -> None:
        """The backend left: close what is idle; what is in use closes when its exchange ends."""
        self._closed = True
        self._deadlines.discard(self)
        while self._idle:
            self._idle.pop().transport.close()

    # -- for connections and the sweep -----------------------------------------------------------------------------

    def opened(self, connection: UpstreamConnection) -> None:
        self._open.add(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        if connection.relay is None and connection in self._idle:
            self._idle.remove(connection)

    def expired(self, now: float) -> None:
        """Close what has been idle too long."""
        oldest_ok = now - self.keepalive_s
        kept = [connection for connection in self._idle if connection.idle_since > oldest_ok]
        for connection in self._idle[: len(self._idle) - len(kept)]:
            connection.transport.close()
        self._idle[:] = kept
        self.deadline = kept[0].idle_since + self.keepalive_s if kept else NEVER

    async def _connect(self) -> UpstreamConnection:
        try:
            async with asyncio.timeout(self.connect_s or None):
                return await self._connect_any()
        except TimeoutError as error:
            raise UpstreamLost(Outcome.CONNECT_TIMEOUT, f"no connection within {self.connect_s:g} s") from error
        except ssl.SSLError as error:
            raise UpstreamLost(Outcome.REFUSED, f"TLS: {error.reason or error}") from error
        except OSError as error:
            raise UpstreamLost(Outcome.REFUSED, error.strerror or str(error)) from error

    async def _connect_any(self) -> UpstreamConnection:
        hosts = [self._host] if self._resolve is None else await self._resolve(self._host, self._port)
        failure: OSError | None = None
        for host in hosts:
            try:
                return await self._connect_one(host)
            except OSError as error:
                failure = error
        raise failure or OSError("the name has no address")

    async def _connect_one(self, host: str) -> UpstreamConnection:
        connection = UpstreamConnection(self)
        try:
            await self._loop.create_connection(
                lambda: connection,
                host,
                self._port,
                ssl=self._tls,
                server_hostname=self._server_name if self._tls else None,
            )
        except BaseException:
            # Given up in the middle, uvloop does not say that the connection is lost although it said that it was made.
            self.closed(connection)
            raise
        return connection


class Connecting:
    """A connection being opened. `signal` gives it, or raises `UpstreamLost`."""

    __slots__ = ("_task", "signal")

    def __init__(self, task: "asyncio.Task[UpstreamConnection]") -> None:
        self._task = task
        self.signal: Signal[UpstreamConnection] = Signal()
        task.add_done_callback(self._done)

    def cancel(self) -> None:
        """Nobody wants it any more. One that is already open is closed."""
        if self._task.done():
            if not self._task.cancelled() and self._task.exception() is None:
                self._task.result().abort()
        else:
            self._task.cancel()

    def _done(self, task: "asyncio.Task[UpstreamConnection]") -> None:
        if task.cancelled():
            self.signal.fail(UpstreamLost(Outcome.ABANDONED, "given up"))
        elif (error := task.exception()) is not None:
            self.signal.fail(error)
        elif (connection := task.result()).transport.is_closing():
            # It is gone again already, so nothing would ever tell its next user.
            self.signal.fail(UpstreamLost(Outcome.REFUSED, "closed as soon as it was open"))
        else:
            self.signal.set(connection)
