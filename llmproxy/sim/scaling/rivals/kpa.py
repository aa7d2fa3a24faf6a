"""Knative's KPA, as documented (knative.dev, "Autoscaling"; serving's docs/scaling): asked every 2 s; concurrency
averaged over the stable window wants `concurrency / target`; when the panic window (a tenth of it) wants at least twice
what is ready, it panics: up only, until a stable window has passed without that. `scale_down_delay_s` is 0 by default.
Up at most a thousandfold, down at most by half of what is ready at a time."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from llmproxy.policy.scaling.highest import Highest
from llmproxy.sim.scaling.fleet import Fleet, Model


@dataclass(frozen=True, slots=True)
class KpaOptions:
    """Names as in config-autoscaler; `target`: of the requests a full replica runs."""

    target: float = 0.55
    stable_window_s: int = 60
    panic_window_share: float = 0.1
    panic_threshold: float = 2.0
    scale_down_delay_s: float = 0.0


class Kpa:
    """See the module."""

    def __init__(self, model: Model, traffic: Sequence[int], options: KpaOptions | None = None) -> None:
        self.period_s = 2
        self._options = options = options or KpaOptions()
        self._target = options.target * model.running_max
        self._stable: deque[float] = deque(maxlen=options.stable_window_s)
        self._panic: deque[float] = deque(maxlen=max(round(options.stable_window_s * options.panic_window_share), 1))
        self._stable_sum = 0.0
        self._panicked: int | None = None
        self._panic_most = 0
        self._highest = Highest()

    def second(self, count: int, fleet: Fleet) -> None:
        concurrency = fleet.running + fleet.waiting
        if len(self._stable) == self._stable.maxlen:
            self._stable_sum -= self._stable[0]
        self._stable_sum += concurrency
        self._stable.append(concurrency)
        self._panic.append(concurrency)

    def wanted(self, fleet: Fleet) -> int | None:
        options, ready = self._options, max(fleet.ready, 1)
        down_to = floor(ready / 2)
        stable = max(ceil(self._stable_sum / len(self._stable) / self._target - 1e-6), down_to)
        panic = max(ceil(sum(self._panic) / len(self._panic) / self._target - 1e-6), down_to)
        if panic >= options.panic_threshold * ready:
            self._panicked = fleet.now
        elif self._panicked is not None and fleet.now - self._panicked >= options.stable_window_s:
            self._panicked, self._panic_most = None, 0
        wanted = stable
        if self._panicked is not None:
            wanted = self._panic_most = max(self._panic_most, stable, panic, fleet.ready)
        if options.scale_down_delay_s:
            wanted = self._highest.add(wanted, float(fleet.now), options.scale_down_delay_s)
        return wanted

    def done(self, change: int, fleet: Fleet) -> None:
        """Counts for nothing in its rules."""
