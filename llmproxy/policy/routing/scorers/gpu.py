"""Idleness of the GPU."""

from collections.abc import Sequence

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.freshness import known_or_typical

MAX_AGE_S = 5.0


class GpuScorer(Unlearning):
    """1 less the GPU's utilisation."""

    __slots__ = ()

    def scores(self, candidates: Sequence[Backend], request: Request, now: float) -> list[float]:
        busy = known_or_typical(
            candidates, lambda gauges: gauges.gpu.utilization if gauges.gpu else None, now, MAX_AGE_S, 0.5
        )
        return [min(max(1.0 - share, 0.0), 1.0) for share in busy]
