"""Smooth weighted round robin: turns in proportion to weight, interleaved instead of in bursts (a, b, a for 2:1)."""

import random
from collections.abc import Sequence
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions


class RoundRobin(Unlearning):
    """Each turn every candidate earns its weight; the richest is picked and pays what all of them earned."""

    __slots__ = ("_credit",)
    options_type: ClassVar = NoOptions

    def __init__(self, options: NoOptions, rng: random.Random) -> None:
        self._credit: dict[Backend, float] = {}

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        credit = self._credit
        best = candidates[0]
        highest = float("-inf")
        total = 0.0
        for backend in candidates:
            weight = backend.weight
            total += weight
            earned = credit[backend] = credit.get(backend, 0.0) + weight
            if earned > highest:
                highest = earned
                best = backend
        credit[best] = highest - total
        return best

    def forget(self, backend: Backend) -> None:
        self._credit.pop(backend, None)
