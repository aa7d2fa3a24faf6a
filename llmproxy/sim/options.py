"""How large and how fast an engine is."""

from dataclasses import dataclass
from typing import Protocol


class StepTime(Protocol):
    """How long a step lasts, in seconds."""

    def __call__(self, decoding: int, kv_tokens: int, prefill_tokens: int, attended: int) -> float:
        """`decoding` sequences that get a token, and the `kv_tokens` they read; `prefill_tokens` of prompts, and the
        product of each chunk's tokens and the context they attend to, summed up in `attended`."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The size and speed of an engine."""

    max_num_seqs: int = 256
    """Sequences computed at the same time; the others wait."""
    kv_blocks: int = 8192
    block_size: int = 16
    """Tokens in a KV block."""
    ttft_s: float = 0.05
    """The fixed part of the time to the first token."""
    itl_s: float = 0.02
    """Length of a step that decodes one sequence."""
    prefill_s_per_token: float = 50e-6
    batch_slowdown: float = 0.005
    """How much longer a step gets with each further sequence that decodes, as a share of `itl_s`."""
    max_batched_tokens: int = 8192
    """Tokens computed in one step, decoded and prefilled together."""
    step_time: StepTime | None = None
    """Instead of the line that `itl_s`, `batch_slowdown` and `prefill_s_per_token` draw."""

    def __post_init__(self) -> None:
        if self.max_num_seqs < 1 or self.max_batched_tokens < 1:
            raise ValueError("an engine needs room for at least one sequence and one token a step")
        if min(self.ttft_s, self.itl_s, self.prefill_s_per_token, self.batch_slowdown) < 0:
            raise ValueError("an engine's times cannot be negative")
