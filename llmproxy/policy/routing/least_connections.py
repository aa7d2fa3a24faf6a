"""The candidate with the fewest requests in flight for its weight."""

import random
from collections.abc import Sequence
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions
from llmproxy.policy.routing.round_robin import RoundRobin

_INFINITE = float("inf")


class LeastConnections(Unlearning):
    """Lowest `in_flight / weight`; equals take turns by weight, so that an idle fleet is not one busy backend."""

    __slots__ = ("_turn", "_turns")
    options_type: ClassVar = NoOptions

    def __init__(self, options: NoOptions, rng: random.Random) -> None:
        self._turn = 0
        self._turns = RoundRobin(options, rng)

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        lowest = _INFINITE
        equals: list[Backend] = []
        alike = True
        for backend in candidates:
            weight = backend.weight
            cost = backend.load.in_flight / weight
            if cost < lowest:
                lowest = cost
                equals = [backend]
                alike = True
            elif cost == lowest:
                alike = alike and weight == equals[0].weight
                equals.append(backend)
        if len(equals) == 1:
            return equals[0]
        if not alike:
            return self._turns.pick(equals, request, now)
        self._turn = turn = self._turn + 1
        return equals[turn % len(equals)]

    def forget(self, backend: Backend) -> None:
        self._turns.forget(backend)
