"""Where the pieces of an answer go."""

from llmproxy.core.outcome import Outcome
from llmproxy.wire.fields import HeaderList


class AnswerSink:
    """Takes an answer off an upstream connection; `Relay` is the only kind there is. A class, not a protocol: compiled,
    `piece` is then called without being looked up, once a chunk."""

    __slots__ = ()

    def piece(self, raw: bytes, body: bytes, verbatim: bool, last: bool = False) -> None:
        """A read's worth of the answer. `raw`: as read; `body`: its payload; `verbatim`: `raw` is whole chunks only."""
        raise NotImplementedError

    def lost(self, outcome: Outcome) -> None:
        """The connection is gone before the answer was whole."""
        raise NotImplementedError

    def informational(self, status: int, headers: HeaderList) -> None:
        """A 1xx answer came first."""
        raise NotImplementedError
