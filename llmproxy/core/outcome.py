"""How an attempt at a backend ended: the vocabulary shared by health, retries, routing and telemetry."""

from enum import Enum
from typing import Final

from llmproxy.core.enums import plain


@plain
class Outcome(Enum):
    """The end of one attempt. The value is the label used in logs and metrics."""

    OK = "ok"
    """A complete answer (any status below 500 except 429)."""
    REFUSED = "refused"
    """No connection: refused, unreachable, name not found, TLS refused."""
    CONNECT_TIMEOUT = "connect_timeout"
    RESET = "reset"
    """The connection was lost after the request was sent and before any byte of the answer reached the client."""
    SERVER_ERROR = "server_error"
    """Status 500, 502, 504, or a 503 that does not mean busy, or an error as the engine's whole answer."""
    ENGINE_ABORT = "engine_abort"
    """The engine gave up on the request: `finish_reason: "abort"`, or an error event."""
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    STALLED = "stalled"
    """No byte of progress for `timeouts.between_bytes` in the middle of an answer."""
    CUT = "cut"
    """The connection was lost in the middle of an answer that the client already had a part of."""
    BAD_RESPONSE = "bad_response"
    """Bytes that are not HTTP/1.1, or an answer that breaks its own framing."""
    BUSY = "busy"
    """429, 503 with Retry-After, or an error in a full engine's own words: full, not sick."""
    ABANDONED = "abandoned"
    """The client left; says nothing about the backend."""
    DEADLINE = "deadline"
    """The request's own total time ran out; says nothing about the backend."""

    @property
    def is_failure(self) -> bool:
        """Whether this counts against the backend's health."""
        return self not in _NEUTRAL

    @property
    def is_loss(self) -> bool:
        """Whether the connection is proven lost, so that a retry costs the fleet no second generation."""
        return self in _LOSSES

    @property
    def is_crash(self) -> bool:
        """Whether this request itself may have killed the engine (it was sent, then the connection died)."""
        return self in _CRASHES


_NEUTRAL = frozenset({Outcome.OK, Outcome.BUSY, Outcome.ABANDONED, Outcome.DEADLINE})
_LOSSES = frozenset({Outcome.REFUSED, Outcome.RESET})
_CRASHES = frozenset({Outcome.RESET, Outcome.CUT})

LABELS: Final = {outcome: outcome.value for outcome in Outcome}
"""The values, for once a request: `.value` runs Python code."""
