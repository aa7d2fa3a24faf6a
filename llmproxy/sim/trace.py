"""Real traffic to replay: when each request came, how long its prompt and answer were, and which prefix it shared."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from statistics import median_high


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. `blocks`: ids of its prompt's blocks of `BLOCK_TOKENS` tokens; equal ids mean equal prefixes."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


BLOCK_TOKENS = 512


def spread(trace: Sequence[Arrival], load: float, jitter_s: float, rng: random.Random) -> list[Arrival]:
    """The trace at `load` times its rate, with up to `jitter_s` seconds added to each arrival (for traces whose clock
    is coarse), from second 0 on."""
    if load <= 0:
        raise ValueError("the load must be positive")
    moved = [replace(one, at_s=(one.at_s + rng.random() * jitter_s) / load) for one in trace]
    moved.sort(key=lambda one: one.at_s)
    first = moved[0].at_s if moved else 0.0
    return [replace(one, at_s=one.at_s - first) for one in moved]


def regrid(hashes: Sequence[int], from_tokens: float, to_tokens: int) -> tuple[int, ...]:
    """Blocks of `to_tokens` tokens over hashes of blocks of `from_tokens`, each of which covers all before it: a block
    is known by the hash that reaches its end, and by its number, as one hash may cover several blocks."""
    blocks = []
    for number in range(int(len(hashes) * from_tokens / to_tokens)):
        reaches = ceil((number + 1) * to_tokens / from_tokens - 1e-9)
        blocks.append(hash((hashes[reaches - 1], number)))
    return tuple(blocks)


_MOMENTS_MIN = 20


def clock_tick_s(trace: Sequence[Arrival]) -> float:
    """The step of the clock the arrivals were recorded with, where it is so coarse that several share a moment, in the
    mean; else 0."""
    moments = sorted({round(one.at_s * 1e3) for one in trace})
    if len(moments) < _MOMENTS_MIN or len(trace) < 2 * len(moments):
        return 0.0
    gaps = [later - sooner for sooner, later in pairwise(moments)]
    # Most moments are followed by the next one. Clocks drift by a little, so no gap is exact.
    tick = median_high(gaps)
    regular = sum(1 for gap in gaps if abs(gap - round(gap / tick) * tick) <= 1 + tick / 100)
    return tick / 1e3 if regular >= 0.9 * len(gaps) else 0.0
