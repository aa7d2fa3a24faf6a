"""What routing knows of a prompt without understanding it: its size, and a hash for each of its leading blocks."""

from collections.abc import Sequence
from typing import Final

BLOCK_BYTES: Final = 2048
"""Bytes of canonical prompt in a block: some 512 tokens of English."""
TOKENS_PER_BYTE: Final = 0.25
"""Until a model's own ratio is known: some four bytes of English, or of JSON, are a token."""


class Prompt:
    """`size` in bytes; `blocks` are the hashes of its full blocks in order, each of which covers all before it, so
    that equal hashes mean equal prefixes."""

    __slots__ = ("blocks", "size")

    def __init__(self, size: int, blocks: Sequence[int] = ()) -> None:
        self.size = size
        self.blocks = blocks


NO_PROMPT: Final = Prompt(0)


class TokenCounts:
    """What the engine said of a finished request. None: it did not say."""

    __slots__ = ("cached", "completion", "prompt")

    def __init__(self, prompt: int | None = None, cached: int | None = None, completion: int | None = None) -> None:
        self.prompt = prompt
        self.cached = cached
        self.completion = completion
