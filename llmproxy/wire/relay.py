"""An answer on its way from an upstream connection to a client, piece by piece, by the reader's verdicts."""

from enum import Enum
from typing import Final, Protocol

from llmproxy.core.enums import plain
from llmproxy.core.outcome import Outcome
from llmproxy.core.step import Signal
from llmproxy.wire.answer_head import AnswerHead
from llmproxy.wire.answer_sink import AnswerSink
from llmproxy.wire.client import ClientConnection
from llmproxy.wire.fields import HeaderList
from llmproxy.wire.upstream import UpstreamConnection


@plain
class Verdict(Enum):
    """What becomes of a piece of an answer's body; bytes in a verdict's place replace it."""

    PASS = "pass"
    HOLD = "hold"
    DROP = "drop"


PASS: Final = Verdict.PASS
HOLD: Final = Verdict.HOLD
DROP: Final = Verdict.DROP


@plain
class Framing(Enum):
    """How the client is told where the body ends."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    NONE = "none"
    """No body: HEAD, 204, 304."""


class Reader:
    """Looks at an answer's decoded body as it comes. A verdict is about everything not yet passed or dropped.
    A class, not a protocol: compiled, its methods are then called without being looked up, once a chunk."""

    __slots__ = ()

    def read(self, body: bytes) -> Verdict | bytes:
        raise NotImplementedError

    def end(self) -> Verdict | bytes:
        """The body is over: what becomes of what is still held (PASS when nothing is)."""
        return PASS


class Owner(Protocol):
    """Whoever asked for the answer."""

    def answer_begins(self, relay: "Relay") -> Reader:
        """The head has arrived (`relay.connection.status` and `.head`): who reads the body?"""

    def informational(self, status: int, headers: HeaderList) -> None:
        """A 1xx answer came first."""


class Relay(AnswerSink):
    """One attempt's answer. `ready` is set at the first verdict that lets something through, at the end of the
    answer, or (with the outcome) when the connection is lost before either; `commit` then sends the head and what
    was held, and `ended` is set when the rest has passed."""

    __slots__ = (
        "_down",
        "_framing",
        "_held",
        "_owner",
        "_verbatim",
        "bytes_out",
        "complete",
        "connection",
        "ended",
        "reader",
        "ready",
    )

    def __init__(self, owner: Owner, connection: UpstreamConnection) -> None:
        self._owner = owner
        self.connection = connection
        self.reader: Reader | None = None
        self.ready: Signal[Outcome | None] = Signal()
        self.ended: Signal[Outcome] | None = None
        self.complete = False
        self.bytes_out = 0
        self._held: list[bytes] = []
        self._down: ClientConnection | None = None
        self._framing = Framing.NONE
        self._verbatim = False

    # -- for the upstream connection -------------------------------------------------------------------------------

    def piece(self, raw: bytes, body: bytes, verbatim: bool, last: bool = False) -> None:
        reader = self.reader
        if reader is None:
            reader = self.reader = self._owner.answer_begins(self)
        verdict: Verdict | bytes = reader.read(body) if body else HOLD
        down = self._down
        if down is None:
            self._before_commit(body, verdict, last)
        elif last:
            self._last(down, raw, body, verdict, verbatim)
        elif verdict is PASS:
            if self._held:
                self._held.append(body)
                self._flush(down)
            elif verbatim and self._verbatim:
                self.bytes_out += len(raw)
                down.write(raw)
            else:
                self._write(down, body)
        else:
            self._judge(body, verdict)
            if isinstance(verdict, bytes):
                self._flush(down)

    def lost(self, outcome: Outcome) -> None:
        if not self.ready.done:
            self.ready.set(outcome)
        elif self.ended is not None:
            self.ended.set(outcome)

    def fail(self, error: Exception) -> None:
        """Whoever waits for the answer gets `error` instead."""
        if not self.ready.done:
            self.ready.fail(error)
        elif self.ended is not None:
            self.ended.fail(error)

    def informational(self, status: int, headers: HeaderList) -> None:
        self._owner.informational(status, headers)

    # -- for the owner ---------------------------------------------------------------------------------------------

    @property
    def held(self) -> bytes:
        """The body so far, nothing of which has been sent."""
        if len(self._held) > 1:
            self._held = [b"".join(self._held)]
        return self._held[0] if self._held else b""

    def replace(self, body: bytes) -> None:
        """Let `body` stand for what is held."""
        self._held = [body]

    def commit(self, down: ClientConnection, head: bytes, framing: Framing) -> None:
        """Send the head with what is held, and let the rest follow. From here on nothing can be tried elsewhere. An
        empty head: the client has had one already."""
        body = self.held
        self._held = []
        self._framing = framing
        connection = self.connection
        if framing is Framing.CHUNKED:
            if body:
                head = b"%b%x\r\n%b\r\n" % (head, len(body), body)
            if self.complete:
                head += _last_chunk(connection.trailers)
        elif framing is not Framing.NONE:
            head += body
        if head:
            self.bytes_out += len(head)
            down.write(head)
        if self.complete:
            return
        self._down = down
        self._verbatim = framing is Framing.CHUNKED and connection.chunked
        self.ended = Signal()
        if down.write_paused:
            connection.pause()

    def flow(self, paused: bool) -> None:
        """The client fell behind, or caught up."""
        if self.connection.relay is self:
            if paused:
                self.connection.pause()
            else:
                self.connection.resume()

    def abort(self) -> None:
        """Give the answer up; its connection is cut, so that the engine stops."""
        if self.connection.relay is self:
            self.connection.abort()

    def say_last(self, data: bytes) -> bool:
        """After `abort`: end the client's body with `data` of our own. False when its framing leaves no room for it."""
        down = self._down
        if down is None or self._framing not in (Framing.CHUNKED, Framing.CLOSE):
            return False
        self._write(down, data)
        if self._framing is Framing.CHUNKED:
            down.write(b"0\r\n\r\n")
        return True

    # -- inside ----------------------------------------------------------------------------------------------------

    def _judge(self, body: bytes, verdict: Verdict | bytes) -> None:
        if verdict is DROP:
            self._held.clear()
        elif isinstance(verdict, bytes):
            self._held = [verdict] if verdict else []
        elif body:
            self._held.append(body)

    def _before_commit(self, body: bytes, verdict: Verdict | bytes, last: bool) -> None:
        self._judge(body, verdict)
        if last:
            self.complete = True
            assert self.reader is not None
            # What has been let through is none of the end's business.
            passed = [] if verdict is HOLD else self._held
            if passed:
                self._held = []
            verdict = self.reader.end()
            if verdict is not PASS:
                self._judge(b"", verdict)
            if passed:
                self._held = passed + self._held
        if last or not (verdict is HOLD or verdict is DROP):
            self.ready.set(None)

    def _last(self, down: ClientConnection, raw: bytes, body: bytes, verdict: Verdict | bytes, verbatim: bool) -> None:
        self.complete = True
        assert self.reader is not None
        end = self.reader.end()
        passes = verdict is PASS or not body
        if verbatim and self._verbatim and passes and end is PASS and not self._held:
            self.bytes_out += len(raw)
            down.write(raw)
        else:
            self._judge(body, verdict)
            if end is not PASS:
                if verdict is not HOLD:
                    self._flush(down)
                self._judge(b"", end)
            self._flush(down)
            if self._framing is Framing.CHUNKED:
                down.write(_last_chunk(self.connection.trailers))
        assert self.ended is not None
        self.ended.set(Outcome.OK)

    def _flush(self, down: ClientConnection) -> None:
        body = self.held
        self._held = []
        if body:
            self._write(down, body)

    def _write(self, down: ClientConnection, body: bytes) -> None:
        if self._framing is Framing.CHUNKED:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        elif self._framing is Framing.NONE:
            return
        self.bytes_out += len(body)
        down.write(body)


def _last_chunk(trailers: HeaderList) -> bytes:
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n" % AnswerHead(trailers).lines
