"""Requests: sizes and moments, and texts for them whose shared beginnings are those of a trace's blocks."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from llmproxy.sim.profile import Profile
from llmproxy.sim.trace import BLOCK_TOKENS, Arrival

_SYLLABLES: Final = ("ba", "do", "fi", "gu", "ka", "le", "mo", "nu", "pa", "re", "si", "to", "va", "xe", "yo", "zu")
_TOKEN_BYTES: Final = 4
"""Of the emulator's tokenizer."""
_TYPICAL_BATCH: Final = 4


@dataclass(frozen=True, slots=True)
class Question:
    """To be sent at `at_s`."""

    at_s: float
    prompt: str
    output_tokens: int


def words(rng: random.Random, count: int) -> str:
    """So many words that mean nothing."""
    return " ".join("".join(rng.choices(_SYLLABLES, k=3)) for _ in range(count))


def mixed_load(profile: Profile, engines: int, share: float, seconds: float, tokens_per_word: float) -> list[Question]:
    """Poisson arrivals of prompts and answers of all lengths, each prompt new, that take about `share` of what the
    engines can do."""
    rng = random.Random("mixed load")
    sizes: list[tuple[int, int]] = []
    cost_s = 0.0
    token_s = profile.step_s(_TYPICAL_BATCH, _TYPICAL_BATCH * 300, 0, 0) / _TYPICAL_BATCH
    while cost_s < share * seconds * engines:
        size = _size(rng, 200, 0.8, 24, 1200), _size(rng, 32, 0.6, 6, 96)
        cost_s += profile.isolated_ttft_s(size[0]) - profile.ttft_s + (size[1] - 1) * token_s
        sizes.append(size)
    moments = accumulate(rng.expovariate(len(sizes) / seconds) for _ in sizes)
    return [
        Question(at, words(rng, max(round(prompt / tokens_per_word), 1)), output)
        for at, (prompt, output) in zip(moments, sizes, strict=True)
    ]


def _size(rng: random.Random, middle: float, spread: float, least: int, most: int) -> int:
    return min(max(round(middle * rng.lognormvariate(0, spread)), least), most)


def of_trace(arrivals: Sequence[Arrival], faster: float) -> list[Question]:
    """Prompts for emulated engines with blocks of `BLOCK_TOKENS`: equal block ids are equal texts."""
    return [
        Question(one.at_s / faster, _text(number, one), max(one.output_tokens, 1))
        for number, one in enumerate(arrivals)
    ]


def _text(number: int, one: Arrival) -> str:
    full = one.prompt_tokens // BLOCK_TOKENS
    pieces = [_block(f"block {id}") for id in one.blocks[:full]]
    left = one.prompt_tokens * _TOKEN_BYTES - sum(map(len, pieces))
    own = random.Random(f"rest {number}").randbytes(left // 2 + 1).hex()
    return "".join(pieces) + own[:left]


def _block(name: str) -> str:
    return random.Random(name).randbytes(BLOCK_TOKENS * _TOKEN_BYTES // 2).hex()
