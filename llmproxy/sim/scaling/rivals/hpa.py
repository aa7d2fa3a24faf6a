"""Kubernetes' HPA, algorithm as documented (kubernetes.io, "Horizontal Pod Autoscaling"), behaviour as by default:
asked every 15 s; up at once, by at most the larger of 100 % and 4 pods in 15 s; down to the highest recommendation of
the stabilisation window."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from llmproxy.policy.scaling.highest import Highest
from llmproxy.sim.scaling.fleet import Fleet, Model

SYNC_S: Final = 15
_UP_PODS: Final = 4


@dataclass(frozen=True, slots=True)
class HpaOptions:
    """`target`: of the requests a full replica runs; `metric_s`: over which the metric is averaged."""

    target: float = 0.72
    down_window_s: float = 120.0
    tolerance: float = 0.1
    metric_s: int = 15


class Hpa:
    """On running and waiting requests per replica."""

    def __init__(self, model: Model, traffic: Sequence[int], options: HpaOptions | None = None) -> None:
        self.period_s = SYNC_S
        self._options = options or HpaOptions()
        self._target = self._options.target * model.running_max
        self._samples: deque[float] = deque(maxlen=self._options.metric_s)
        self._highest = Highest()

    def second(self, count: int, fleet: Fleet) -> None:
        self._samples.append(fleet.running + fleet.waiting)

    def wanted(self, fleet: Fleet) -> int | None:
        return self.recommend(sum(self._samples) / len(self._samples), fleet)

    def recommend(self, total: float, fleet: Fleet) -> int:
        """The algorithm, for a metric whose `total` is to be shared out."""
        current = fleet.ready + fleet.starting
        ratio = total / (self._target * max(current, 1))
        desired = current if abs(ratio - 1) <= self._options.tolerance else ceil(total / self._target - 1e-9)
        desired = min(desired, max(2 * current, current + _UP_PODS))
        highest = self._highest.add(desired, float(fleet.now), self._options.down_window_s)
        return max(desired, min(highest, current))

    def done(self, change: int, fleet: Fleet) -> None:
        """Counts for nothing in its rules."""
