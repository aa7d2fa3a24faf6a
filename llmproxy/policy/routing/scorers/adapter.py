"""Having the LoRA adapter that is asked for."""

from collections.abc import Sequence
from typing import Final

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.adapters import IDLE, MISSING, Adapters

_SCORES: Final = {IDLE: 0.8, MISSING: 0.0}


class AdapterScorer:
    """1 for those that lack nothing, a little less where the adapter has to be fetched, 0 where it is not known."""

    __slots__ = ("_adapters",)

    def __init__(self) -> None:
        self._adapters = Adapters()

    def scores(self, candidates: Sequence[Backend], request: Request, now: float) -> list[float]:
        lacking = self._adapters.lacking(request.model, candidates, now)
        if not lacking:
            return [1.0] * len(candidates)
        return [_SCORES.get(lacking.get(backend, 0), 1.0) for backend in candidates]

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        """Nothing to learn."""

    def forget(self, backend: Backend) -> None:
        self._adapters.forget(backend)
