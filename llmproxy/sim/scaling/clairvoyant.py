"""Knows the demand a cold start and a minute ahead: a bound for everyone who does not.

At each moment as many replicas as the busiest ten seconds of that time need: ten, because that is the shortest average
anybody here looks at. It is no optimum; who only just meets an objective of 99.3 % can do with somewhat less.
"""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from math import ceil

from llmproxy.sim.scaling.fleet import Fleet, Model

AVERAGED_S = 10
BEYOND_S = 60


class Clairvoyant:
    """See the module."""

    def __init__(self, model: Model, traffic: Sequence[int]) -> None:
        self.period_s = 5
        total = [0, *accumulate(traffic)]
        end = len(traffic)
        ahead = model.cold_start_s + BEYOND_S
        busiest = [0.0] * (end + 1)
        window: deque[tuple[int, float]] = deque()
        for at in range(end - 1, -1, -1):
            until = min(end, at + AVERAGED_S)
            rate = (total[until] - total[at]) / (until - at)
            while window and window[-1][1] <= rate:
                window.pop()
            window.append((at, rate))
            while window[0][0] > at + ahead:
                window.popleft()
            busiest[at] = window[0][1]
        self._wanted = [ceil(rate / model.begins_per_s - 1e-9) for rate in busiest]

    def second(self, count: int, fleet: Fleet) -> None:
        """It knows."""

    def wanted(self, fleet: Fleet) -> int | None:
        return self._wanted[min(fleet.now, len(self._wanted) - 1)]

    def done(self, change: int, fleet: Fleet) -> None:
        """Never mind."""
