"""How bytes move on a client's connection: the brakes of both directions."""

import asyncio
from typing import cast

from llmproxy.wire.client import ClientConnection, nowhere
from llmproxy.wire.contracts import Hub
from llmproxy.wire.watchers import Stuck, Unread


class Flow(ClientConnection):
    """The lowest of three layers; `Intake` and `Downstream` build on it. A direction that stands still has a watcher,
    because then nothing else shows that the client has left."""

    __slots__ = ("_hub", "_reading_paused", "_stuck", "_unread", "_write_paused")

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._write_paused = False
        self._reading_paused = False
        self._stuck: Stuck | None = None
        self._unread: Unread | None = None

    @property
    def write_paused(self) -> bool:
        return self._write_paused

    def pause_body(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()
            unread = self._unread = Unread(self.transport, self.abort_exchange)
            self._hub.deadlines.add(unread)

    def resume_body(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._forget_unread()
            self.transport.resume_reading()

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:
            # Written at once, not at the end of the loop's turn; what the socket does not take is what we wait for.
            # (Not behind TLS, whose buffer is for a moment never empty.)
            self.transport.set_write_buffer_limits(high=0)
        self.write = self.transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        self.write = nowhere
        self._forget_stuck()
        self._forget_unread()

    def pause_writing(self) -> None:
        self._write_paused = True
        stuck = self._stuck = Stuck(self.transport, self.abort_exchange, self._hub)
        self._hub.deadlines.add(stuck)
        self._flow(True)

    def resume_writing(self) -> None:
        self._write_paused = False
        self._forget_stuck()
        self._flow(False)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _forget_stuck(self) -> None:
        stuck, self._stuck = self._stuck, None
        if stuck is not None:
            self._hub.deadlines.discard(stuck)

    def _forget_unread(self) -> None:
        unread, self._unread = self._unread, None
        if unread is not None:
            self._hub.deadlines.discard(unread)

    # -- for the layer above to say --------------------------------------------------------------------------------

    def _flow(self, paused: bool) -> None:
        """The client has fallen behind, or caught up."""
        raise NotImplementedError
