"""The candidate with the most room left in its KV cache."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.freshness import fresh


@dataclass(frozen=True, slots=True)
class KvHeadroomOptions:
    """What is assumed where the gauges say nothing."""

    request_share: float = 0.02
    """Share of a KV cache that one request is thought to take, until running requests show it."""
    max_age: float = 5.0
    """Seconds after which a gauge counts as unknown."""

    def __post_init__(self) -> None:
        if not (0 < self.request_share <= 1 and self.max_age > 0):
            raise ValueError("request_share must be within 0 and 1, and max_age positive")


class KvHeadroom(Unlearning):
    """Lowest expected KV usage: the gauge, and what the requests sent since it was read will take, each as much as one
    of those that run. Without a gauge, all requests in flight at `request_share` each. Equals at random."""

    __slots__ = ("_options", "_rng")
    options_type: ClassVar = KvHeadroomOptions

    def __init__(self, options: KvHeadroomOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        ranked = [
            (self._expected(backend, now) / backend.weight, self._rng.random(), place)
            for place, backend in enumerate(candidates)
        ]
        return candidates[min(ranked)[2]]

    def _expected(self, backend: Backend, now: float) -> float:
        share, in_flight = self._options.request_share, backend.load.in_flight + 1
        gauges = fresh(backend, now, self._options.max_age)
        if gauges is None or gauges.kv_usage is None:
            return in_flight * share
        running = gauges.running or 0.0
        each = gauges.kv_usage / running if running else share
        return gauges.kv_usage + max(in_flight - running, 1.0) * each
