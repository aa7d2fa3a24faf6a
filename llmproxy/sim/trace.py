"""Real traffic to replay: when each request came, how long its prompt and answer were, and which prefix it shared."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace


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
