"""What the access log says of one request. Never keys, never prompts."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import asdict


class AccessRecord(Struct, gc=False):
    """One request, as the request path leaves it; its fields are the keys of the JSON line, in this order.

    Make it when the request ended, and do not touch it after `AccessLog.append`: the writer thread finishes it
    (formats the time, cuts long or odd strings). Positional arguments make it fastest. It holds no
    containers but `retries`, so the garbage collector need not look at it.
    """

    time: float | str
    """When the request ended: Unix seconds, written as RFC 3339 in UTC with milliseconds."""
    request_id: str
    client: str
    """The client's address, without the port."""
    method: str
    path: str | bytes
    """Without the query string, which may hold secrets (one that is here is cut off)."""
    pool: str | None = None
    model: str | None = None
    backend: str | None = None
    """The backend that answered, or the last one tried."""
    status: int = 0
    """What the client got; 499 when it left before it got anything."""
    stream: bool = False
    ttft_ms: float | None = None
    """Times come rounded, as they are to be written."""
    duration_ms: float | None = None
    queue_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_source: Literal["usage", "chunks"] | None = None
    """Where the token counts are from: the engine's `usage`, or counted pieces of the stream (an estimate)."""
    attempts: int = 0
    retries: Sequence[str] = ()
    """Why each attempt but the last failed, in order."""
    bytes_in: int = 0
    bytes_out: int = 0
    outcome: str = "ok"
    """How it ended: `ok`, or why it did not end well (`abandoned`, `cut`, `stalled`, `deadline`, ...); `refused`: by
    the proxy, as `error` says, or by the backend's port."""
    error: str | None = None
    """Code of the error the proxy answered with."""
    tenant: str | None = None
    """Whose key it was; None where none was asked for."""
    key: str | None = None
    """The key's name, never the key."""


class PromptRecord(AccessRecord, gc=False):
    """One that also says how the prompt began (`logging.prefix_hashes`)."""

    prefix_hashes: Sequence[int | str] = ()
    """Of the prompt's full blocks, in order, each over all before it. The writer thread puts keyed hashes of them in
    their place."""

    @classmethod
    def of(cls, record: AccessRecord, blocks: Sequence[int]) -> "PromptRecord":
        return cls(**asdict(record), prefix_hashes=blocks)
