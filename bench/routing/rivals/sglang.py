"""SGLang's cache-aware router, now part of SMG.

    if max load - min load > abs and max load > rel * min load: the least loaded
    elif matched / prompt length > cache: the one with the longest match
    else: the one with the smallest tree

Source: "Cache-Aware Load-Balancing Router" in the SGLang documentation (docs/router/router.md), cache 0.5 and abs 32;
rel is 1.0001 there and 1.1 in later releases. SMG's own page (docs/concepts/routing/cache-aware.md) has 0.3, 64 and
1.5, and sends the unmatched to the least loaded: that is `smg` in the tables.

Choices: load is requests in flight, as the router counts them. Each request is entered in the tree of the worker it
goes to, whatever the reason. The tree is not capped: its default limits (16 and 64 million characters a worker) are
several times what a worker's cache holds. Equals at random, as the description names no order.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.core.request import Request
from llmproxy.policy.routing.prefix_index import PrefixIndex

_UNMATCHED: Final = ("smallest_tree", "least_loaded")


@dataclass(frozen=True, slots=True)
class SGLangOptions:
    """The thresholds."""

    cache: float = 0.5
    abs: float = 32.0
    rel: float = 1.1
    unmatched: str = "smallest_tree"
    """Or `least_loaded`."""

    def __post_init__(self) -> None:
        if self.unmatched not in _UNMATCHED:
            raise ValueError(f"unmatched must be one of {', '.join(_UNMATCHED)}")


class SGLang:
    """See the module."""

    options_type: ClassVar = SGLangOptions

    def __init__(self, options: SGLangOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._trees = PrefixIndex()

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        options, prompt = self._options, request.prompt
        loads = [backend.load.in_flight for backend in candidates]
        highest, lowest = max(loads), min(loads)
        if highest - lowest > options.abs and highest > options.rel * lowest:
            return self._least(candidates, _in_flight)
        depths = self._trees.match(prompt.blocks)
        longest = max(depths.values(), default=0)
        if longest * BLOCK_BYTES > options.cache * prompt.size:
            return self._least(candidates, lambda backend: -depths.get(self._trees.bit(backend), 0))
        return self._least(candidates, self._trees.size if options.unmatched == "smallest_tree" else _in_flight)

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        if moment is Moment.SENT:
            self._trees.insert(backend, request.prompt.blocks, sys.maxsize)

    def forget(self, backend: Backend) -> None:
        self._trees.forget(backend)

    def _least(self, candidates: Sequence[Backend], cost: Callable[[Backend], int]) -> Backend:
        costs = [cost(backend) for backend in candidates]
        least = min(costs)
        return self._rng.choice([backend for backend, own in zip(candidates, costs, strict=True) if own == least])


def _in_flight(backend: Backend) -> int:
    return backend.load.in_flight
