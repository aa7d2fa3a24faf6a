"""KEDA on the length of the queue alone: it polls every 30 s, and the HPA it made wants `queue / threshold`.

A queue that is empty wants the minimum; that is why the minimum is searched too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llmproxy.sim.scaling.fleet import Fleet, Model
from llmproxy.sim.scaling.rivals.hpa import SYNC_S, Hpa, HpaOptions

_POLL_S: Final = 30


@dataclass(frozen=True, slots=True)
class KedaOptions:
    """`threshold`: waiting requests for each replica; `minimum`: minReplicaCount."""

    threshold: float = 4.0
    minimum: int = 24
    down_window_s: float = 300.0


class Keda:
    """See the module."""

    def __init__(self, model: Model, traffic: Sequence[int], options: KedaOptions | None = None) -> None:
        self.period_s = SYNC_S
        self._options = options = options or KedaOptions()
        self._hpa = Hpa(model, traffic, HpaOptions(options.threshold / model.running_max, options.down_window_s))
        self._waiting = 0.0
        self._polled = -_POLL_S

    def second(self, count: int, fleet: Fleet) -> None:
        """It polls."""

    def wanted(self, fleet: Fleet) -> int | None:
        if fleet.now - self._polled >= _POLL_S:
            self._polled, self._waiting = fleet.now, fleet.waiting
        return max(self._hpa.recommend(self._waiting, fleet), self._options.minimum)

    def done(self, change: int, fleet: Fleet) -> None:
        """Counts for nothing in its rules."""
