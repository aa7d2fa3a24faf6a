"""One answer being written: a sequence on the engine, and the words it stands for."""

from __future__ import annotations

from typing import Protocol

from llmproxy.emulator.tokens import Script, block_hashes
from llmproxy.sim import Sequence


class Author(Protocol):
    """Whoever a choice is written for."""

    def produced(self, choice: Choice, now: float) -> None:
        """It has another token, or (for a pooled model) its prompt is computed."""


class Choice(Sequence):
    """`index` is its place in the answer. Its `generation` is told of every token, and writes `finish_reason`."""

    __slots__ = ("finish_reason", "generation", "index", "last_token_at", "natural_end", "prompt_ids", "script")

    def __init__(
        self,
        index: int,
        prompt_ids: list[int],
        script: Script,
        *,
        block_size: int,
        natural_end: bool = False,
        salt: str = "",
        pace: float = 1.0,
    ) -> None:
        """`natural_end`: the model would stop by itself after the script, so the reason is "stop", not "length"."""
        hashes = block_hashes(prompt_ids + script.ids, block_size, salt)
        super().__init__(len(prompt_ids), len(script.ids), blocks=hashes, pace=pace)
        self.index = index
        self.prompt_ids = prompt_ids
        self.script = script
        self.natural_end = natural_end
        self.finish_reason: str | None = None
        self.last_token_at = 0.0
        self.generation: Author | None = None

    @property
    def word(self) -> str:
        """The text of the newest token."""
        return self.script.words[self.generated - 1] if self.generated else ""

    @property
    def text(self) -> str:
        """Everything written so far."""
        return "".join(self.script.words[: self.generated])

    @property
    def ids(self) -> list[int]:
        return self.script.ids[: self.generated]

    @property
    def end_reason(self) -> str:
        """Why it ends when nothing goes wrong."""
        return "stop" if self.natural_end or self.script.stop is not None else "length"
