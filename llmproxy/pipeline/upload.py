"""A request body too large to hold, passed on as it comes; such a request is tried once only."""

from llmproxy.pipeline.exchange import Exchange, Phase
from llmproxy.wire.relay import Relay


class Upload:
    """Moves body pieces from the client's connection to the backend's, at the pace of the slower."""

    __slots__ = ("_chunked", "_relay", "_x")

    def __init__(self, x: Exchange, relay: Relay) -> None:
        self._x = x
        self._relay = relay
        self._chunked = x.request.chunked

    def start(self) -> None:
        """Send what has come so far, and everything after it as it comes."""
        request = self._x.request
        self._relay.connection.on_drain = self._drained
        parts, request.parts = request.parts, []
        request.on_body = self._piece
        self._rearm()
        if parts:
            self._piece(b"".join(parts))
        if request.complete:
            self._piece(b"")
        elif not self._relay.connection.write_paused:
            self._x.connection.resume_body()

    def _piece(self, body: bytes) -> None:
        """A further piece; empty when the body is over."""
        connection = self._relay.connection
        if connection.relay is not self._relay:
            # The backend answered early, or is gone: the rest is read and thrown away.
            return
        last = not body
        if self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body)
            if last:
                body = b"0\r\n\r\n"
        connection.send_more(body, last=last)
        if last:
            self._x.phase = Phase.ANSWER if not self._x.answered else Phase.RELAYING
            assert self._x.target is not None
            self._x.arm(self._x.site.clock(), self._x.target.terms.first_byte_s)
            return
        self._rearm()
        if connection.write_paused:
            self._x.connection.pause_body()

    def _drained(self) -> None:
        self._rearm()
        self._x.connection.resume_body()

    def _rearm(self) -> None:
        if self._x.phase is Phase.UPLOADING:
            self._x.arm(self._x.site.clock(), self._x.snapshot.config.server.timeouts.body)
