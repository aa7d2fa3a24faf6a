"""The candidate that has most of the prompt in its prefix cache, unless it is overloaded."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.adapters import MISSING, Adapters
from llmproxy.policy.routing.prefix_index import PrefixIndex, capacity_blocks
from llmproxy.policy.routing.recent_sessions import RecentSessions


@dataclass(frozen=True, slots=True)
class PrefixAffinityOptions:
    """How much load an affinity may cost."""

    load_bound: float = 1.25
    """A backend takes at most this multiple of its fair share of the requests in flight, and two more."""
    min_match: float = 0.1
    """Shares of a prompt below this are no reason: every chat of an application begins alike."""
    cache_tokens: int = 400_000
    """Size of a backend's KV cache until its metrics tell."""

    def __post_init__(self) -> None:
        if self.load_bound < 1 or not 0 <= self.min_match <= 1 or self.cache_tokens < 1:
            raise ValueError("load_bound must be 1 or more, min_match within 0 and 1, cache_tokens positive")


class PrefixAffinity:
    """Most matching blocks among those within the load bound; without a match, lowest `(in_flight + 1) / weight`;
    equals at random. Those within the bound that have the model or LoRA adapter asked for come before all others."""

    __slots__ = ("_adapters", "_index", "_options", "_recent", "_rng")
    options_type: ClassVar = PrefixAffinityOptions

    def __init__(self, options: PrefixAffinityOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._index = PrefixIndex()
        self._adapters = Adapters()
        self._recent = RecentSessions()

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        blocks = request.prompt.blocks
        depths = self._index.match(blocks)
        least = max(self._options.min_match * len(blocks), 1)
        in_flight = 1 + sum(backend.load.in_flight for backend in candidates)
        per_weight = self._options.load_bound * in_flight / sum(backend.weight for backend in candidates)
        lacking = self._adapters.lacking(request.model, candidates, now)
        ranked = []
        for place, backend in enumerate(candidates):
            load = backend.load.in_flight
            depth = depths.get(self._index.bit(backend), 0) if depths else 0
            beyond = load >= per_weight * backend.weight + 2
            if depth < least or beyond:
                depth = 0
            lacks = bool(lacking) and (beyond or lacking.get(backend) == MISSING)
            ranked.append((lacks, -depth, (load + 1) / backend.weight, self._rng.random(), place))
        best = min(ranked)
        request.reason = "prefix" if best[1] else "load"
        chosen = candidates[best[4]]
        request.note = depths.get(self._index.bit(chosen), 0) if depths else 0
        return chosen

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        if moment is Moment.SENT:
            blocks = request.prompt.blocks
            if isinstance(request.note, int):
                self._recent.turn(blocks, request.note, backend, now)
            self._index.insert(backend, blocks, capacity_blocks(backend, self._options.cache_tokens))

    def sessions(self, now: float) -> Mapping[str, int]:
        return self._recent.live(now)

    def forget(self, backend: Backend) -> None:
        self._index.forget(backend)
        self._adapters.forget(backend)
        self._recent.forget(backend)
