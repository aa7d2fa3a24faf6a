"""The less loaded of two random candidates: nearly as even as looking at all of them, and no herd on one idle backend
when many proxies choose at the same time."""

import random
from collections.abc import Sequence
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.options import NoOptions


class PowerOfTwo(Unlearning):
    """Two different candidates, any pair as likely; the lower `(in_flight + 1) / weight` wins, the first if equal."""

    __slots__ = ("_rng",)
    options_type: ClassVar = NoOptions

    def __init__(self, options: NoOptions, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        count = len(candidates)
        if count == 1:
            return candidates[0]
        draw = self._rng.random
        first = int(draw() * count)
        second = int(draw() * (count - 1))
        if second >= first:
            second += 1
        one, other = candidates[first], candidates[second]
        if (other.load.in_flight + 1) / other.weight < (one.load.in_flight + 1) / one.weight:
            return other
        return one
