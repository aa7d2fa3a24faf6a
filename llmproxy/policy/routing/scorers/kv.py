"""Room in the KV cache."""

from collections.abc import Sequence

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.freshness import known_or_typical

MAX_AGE_S = 5.0


class KvScorer(Unlearning):
    """The share of the KV cache that is free."""

    __slots__ = ()

    def scores(self, candidates: Sequence[Backend], request: Request, now: float) -> list[float]:
        used = known_or_typical(candidates, lambda gauges: gauges.kv_usage, now, MAX_AGE_S, 0.5)
        return [min(max(1.0 - share, 0.0), 1.0) for share in used]
