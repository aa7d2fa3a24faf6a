"""A random candidate, with a chance in proportion to its weight."""

import random
from collections.abc import Sequence
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions


class Weighted(Unlearning):
    """Keeps no state, so a changed weight counts from the next request on."""

    __slots__ = ("_rng",)
    options_type: ClassVar = NoOptions

    def __init__(self, options: NoOptions, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        total = 0.0
        for backend in candidates:
            total += backend.weight
        left = self._rng.random() * total
        for backend in candidates:
            left -= backend.weight
            if left < 0.0:
                return backend
        # The sum and the differences may round differently in the last place.
        return candidates[-1]
