"""Any candidate with equal chance. Weights, and so slow start, play no part: that is `weighted`."""

import random
from collections.abc import Sequence
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions


class RandomChoice(Unlearning):
    """The policy `random`."""

    __slots__ = ("_rng",)
    options_type: ClassVar = NoOptions

    def __init__(self, options: NoOptions, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        return candidates[int(self._rng.random() * len(candidates))]
