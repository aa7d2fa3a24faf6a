"""Requests in flight, relative to the other candidates."""

from collections.abc import Sequence

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning


class QueueScorer(Unlearning):
    """1 for the least `in_flight / weight` among the candidates, 0 for the most."""

    __slots__ = ()

    def scores(self, candidates: Sequence[Backend], request: Request, now: float) -> list[float]:
        loads = [backend.load.in_flight / backend.weight for backend in candidates]
        least, most = min(loads), max(loads)
        if most == least:
            return [1.0] * len(loads)
        return [(most - load) / (most - least) for load in loads]
