"""An engine's profile: its size, and what a step costs, fitted to measurements of one GPU and one model."""

import json
from dataclasses import dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from llmproxy.config.document import Entries, Node, Scalar, Unreadable, read_document
from llmproxy.config.scalars import core_value
from llmproxy.sim.options import EngineOptions


@dataclass(frozen=True, slots=True)
class Profile:
    """`step_s = (lin(n) + overhead + sequence_s * decoding + kv_s * kv_tokens + attention_s * attended) / speed`, where
    n counts all tokens of a step and lin is a line with a bend at `bend_tokens`.

    The defaults were fitted to the published profile of Llama-3-8B on an A100 in Vidur (Agrawal et al., MLSys 2024).
    """

    name: str = "a100-llama-3-8b"
    kv_blocks: int = 2600
    block_size: int = 512
    """Tokens in a block."""
    max_batched_tokens: int = 2048
    max_num_seqs: int = 256
    overhead_s: float = 2e-3
    base_s: float = 9.7e-3
    token_s: float = 3.83e-5
    bend_tokens: int = 256
    base_above_s: float = 19.5e-3
    token_above_s: float = 6.65e-5
    kv_s: float = 9.4e-8
    attention_s: float = 2.9e-9
    sequence_s: float = 0.0
    """What a sequence that decodes costs beyond its token: sampling, and telling its client."""
    ttft_s: float = 0.0
    """What a request takes before its first step, on a GPU of any speed: HTTP, the tokenizer."""
    speed: float = 1.0

    def __post_init__(self) -> None:
        if min(self.kv_blocks, self.block_size, self.max_batched_tokens, self.max_num_seqs) < 1:
            raise ValueError("kv_blocks, block_size, max_batched_tokens and max_num_seqs must be at least 1")
        times = self.overhead_s, self.base_s, self.token_s, self.kv_s, self.attention_s, self.sequence_s, self.ttft_s
        if self.speed <= 0 or min(times) < 0:
            raise ValueError("speed must be positive, and no time negative")

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit into the KV cache."""
        return self.kv_blocks * self.block_size

    def at(self, speed: float) -> "Profile":
        """The same engine on a GPU `speed` times as fast."""
        return replace(self, speed=self.speed * speed)

    def step_s(self, decoding: int, kv_tokens: int, prefill_tokens: int, attended: int) -> float:
        """Seconds of one step (see `llmproxy.sim.engine.StepTime`)."""
        tokens = decoding + prefill_tokens
        if tokens <= self.bend_tokens:
            line = self.base_s + self.token_s * tokens
        else:
            line = self.base_above_s + self.token_above_s * tokens
        own = self.overhead_s + self.sequence_s * decoding
        return (line + own + self.kv_s * kv_tokens + self.attention_s * attended) / self.speed

    def isolated_ttft_s(self, prompt_tokens: int) -> float:
        """Time to the first token of a lone request with nothing cached."""
        seconds, computed = self.ttft_s, 0
        while computed < prompt_tokens:
            chunk = min(prompt_tokens - computed, self.max_batched_tokens)
            computed += chunk
            seconds += self.step_s(0, 0, chunk, chunk * computed)
        return seconds

    def engine_options(self) -> EngineOptions:
        return EngineOptions(
            max_num_seqs=self.max_num_seqs,
            kv_blocks=self.kv_blocks,
            block_size=self.block_size,
            max_batched_tokens=self.max_batched_tokens,
            ttft_s=self.ttft_s,
            step_time=self.step_s,
        )

    def yaml(self) -> str:
        """A file that `read_profile` reads back to an equal profile."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            lines.append(f"{field.name}: {json.dumps(value)}\n")
        return "".join(lines)


def read_profile(path: Path) -> Profile:
    """A profile from YAML: names of `Profile`'s fields and their values; the defaults stand for what is left out.
    Raises ValueError in words the user can act on."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    faults: list[str] = []
    try:
        root = read_document(text, lambda line, _, message: faults.append(f"{path}:{line}: {message}"))
    except Unreadable as error:
        raise ValueError(f"{path}:{error.line}: {error.message}") from None
    if not isinstance(root, Entries):
        raise ValueError(f"{path}:{root.line}: a profile is a mapping of names to numbers")
    values: dict[str, Any] = {}
    for name, node in root.entries.items():
        try:
            values[name] = _value(name, node)
        except ValueError as error:
            faults.append(f"{path}:{root.key_lines[name]}: {name}: {error}")
    if faults:
        raise ValueError("\n".join(faults))
    try:
        return Profile(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _value(name: str, node: Node) -> object:
    kinds = {field.name: field.type for field in fields(Profile)}
    if name not in kinds:
        raise ValueError(f"there is no such thing in a profile (known: {', '.join(kinds)})")
    if not isinstance(node, Scalar):
        raise ValueError("must be a single value")
    value = core_value(node.text) if node.plain else node.text
    if kinds[name] is str:
        return node.text
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if kinds[name] is float and isinstance(value, float) and isfinite(value):
        return value
    raise ValueError(f"{node.text!r} is not a {'whole ' if kinds[name] is int else ''}number")
