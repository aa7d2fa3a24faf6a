"""Several aspects weighed against each other, each by a scorer of its own."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.scorers import SCORERS


@dataclass(frozen=True, slots=True)
class ScoredOptions:
    """The weight of each scorer; 0 leaves it out."""

    prefix: float = 3.0
    queue: float = 2.0
    kv: float = 2.0
    gpu: float = 0.0
    adapter: float = 4.0
    """Makes a difference only where backends have different models or LoRA adapters."""

    def __post_init__(self) -> None:
        weights = [getattr(self, field.name) for field in fields(self)]
        if min(weights) < 0 or not any(weights):
            raise ValueError("no weight may be negative, and one must be positive")


class Scored:
    """Highest weighted sum of scores; equals at random. The defaults are those of llm-d's scheduler."""

    __slots__ = ("_rng", "_scorers")
    options_type: ClassVar = ScoredOptions

    def __init__(self, options: ScoredOptions, rng: random.Random) -> None:
        self._rng = rng
        weights = {name: getattr(options, name) for name in SCORERS}
        self._scorers = [(name, SCORERS[name](), weight) for name, weight in weights.items() if weight]

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        totals = [0.0] * len(candidates)
        for _, scorer, weight in self._scorers:
            for place, score in enumerate(scorer.scores(candidates, request, now)):
                totals[place] += weight * score
        best = max(totals)
        equals = [backend for backend, total in zip(candidates, totals, strict=True) if total == best]
        if len(equals) == 1:
            request.reason = "score"
            return equals[0]
        request.reason = "tie"
        return self._rng.choice(equals)

    def explain(self, candidates: Sequence[Backend], request: Request, now: float) -> list[dict[str, float]]:
        """Each scorer's weighted part."""
        told: list[dict[str, float]] = [{"score": 0.0} for _ in candidates]
        for name, scorer, weight in self._scorers:
            for terms, score in zip(told, scorer.scores(candidates, request, now), strict=True):
                terms[name] = weight * score
                terms["score"] += weight * score
        return told

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        for _, scorer, _ in self._scorers:
            scorer.observe(moment, backend, request, now)

    def forget(self, backend: Backend) -> None:
        for _, scorer, _ in self._scorers:
            scorer.forget(backend)
