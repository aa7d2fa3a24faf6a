"""One sequence on an engine: a prompt, and the tokens that follow it."""

from collections.abc import Sequence as Ordered
from enum import Enum

from llmproxy.sim.blocks import BlockTable


class Phase(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODING = "decoding"
    DONE = "done"


class Sequence:
    """What the driver asks for, and below it what the engine writes.

    `blocks` are content hashes of the full blocks of prompt and output together, as far as they are known (see
    `BlockPool`). `output_tokens` may be 0: pooled models compute a prompt and generate nothing. `pace` above 1 makes
    this sequence that much slower than the engine.
    """

    __slots__ = (
        "admitted_at",
        "blocks",
        "cached_tokens",
        "computed",
        "first_token_at",
        "generated",
        "milestone",
        "output_tokens",
        "pace",
        "phase",
        "place",
        "prompt_tokens",
        "ready_at",
        "submitted_at",
        "table",
    )

    def __init__(self, prompt_tokens: int, output_tokens: int, *, blocks: Ordered[int] = (), pace: float = 1.0) -> None:
        if prompt_tokens < 1 or output_tokens < 0 or pace < 1:
            raise ValueError("a sequence has at least one prompt token, no negative output and a pace of at least 1")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.blocks = blocks
        self.pace = pace

        self.phase = Phase.WAITING
        self.computed = 0
        self.generated = 0
        self.milestone = 0
        """So many tokens generated, and it ends or needs a block."""
        self.cached_tokens = 0
        self.submitted_at = 0.0
        self.admitted_at: float | None = None
        self.first_token_at: float | None = None
        self.ready_at = 0.0
        self.place = 0
        """How many got a place before it."""
        self.table: BlockTable | None = None

    @property
    def tokens(self) -> int:
        """Prompt and output so far."""
        return self.prompt_tokens + self.generated
