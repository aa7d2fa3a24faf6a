"""Scores for the policy `scored`: one aspect a file, each candidate rated in [0, 1], 1 the best.

The shape is llm-d's: filter, score, pick. An aspect that nobody knows anything about rates all alike, so it has no say.
Adding one: a file with a class (constructor without arguments; `scores`, `observe`, `forget`) and a line below.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.scorers.adapter import AdapterScorer
from llmproxy.policy.routing.scorers.gpu import GpuScorer
from llmproxy.policy.routing.scorers.kv import KvScorer
from llmproxy.policy.routing.scorers.prefix import PrefixScorer
from llmproxy.policy.routing.scorers.queue import QueueScorer


class Scorer(Protocol):
    """Rates candidates by one aspect."""

    def scores(self, candidates: Sequence[Backend], request: Request, now: float) -> list[float]:
        """One number in [0, 1] for each candidate, in their order."""

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None: ...

    def forget(self, backend: Backend) -> None: ...


SCORERS: Final[Mapping[str, type[Scorer]]] = MappingProxyType(
    {"adapter": AdapterScorer, "gpu": GpuScorer, "kv": KvScorer, "prefix": PrefixScorer, "queue": QueueScorer}
)
