"""The candidate with the fewest requests in flight for its weight."""

import random
from collections.abc import Sequence
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions

_INFINITE = float("inf")


class LeastConnections(Unlearning):
    """Lowest `(in_flight + 1) / weight`; equals take turns, so that an idle fleet is not one busy backend."""

    __slots__ = ("_turn",)
    options_type: ClassVar = NoOptions

    def __init__(self, options: NoOptions, rng: random.Random) -> None:
        self._turn = 0

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        lowest = _INFINITE
        equals: list[Backend] = []
        for backend in candidates:
            cost = (backend.load.in_flight + 1) / backend.weight
            if cost < lowest:
                lowest = cost
                equals = [backend]
            elif cost == lowest:
                equals.append(backend)
        if len(equals) == 1:
            return equals[0]
        self._turn = turn = self._turn + 1
        return equals[turn % len(equals)]
