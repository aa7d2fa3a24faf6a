"""The candidate whose GPU is least busy, as its gauges say."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmproxy.core.backend import Backend, Gauges
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.freshness import fresh, known_or_typical


@dataclass(frozen=True, slots=True)
class GpuUtilizationOptions:
    """What is measured is seconds old: differences smaller than `step` are not told apart."""

    memory_ceiling: float = 0.98
    """Backends whose GPU memory is fuller than this are left out, unless all are."""
    step: float = 0.1
    max_age: float = 5.0
    """Seconds after which a gauge counts as unknown."""

    def __post_init__(self) -> None:
        if not (0 < self.memory_ceiling <= 1 and 0 < self.step <= 1 and self.max_age > 0):
            raise ValueError("memory_ceiling and step must be within 0 and 1, and max_age positive")


class GpuUtilization(Unlearning):
    """Lowest utilisation in steps of `step`, then lowest `(in_flight + 1) / weight`, then at random. A GPU that says
    nothing counts as the mean of those that do."""

    __slots__ = ("_options", "_rng")
    options_type: ClassVar = GpuUtilizationOptions

    def __init__(self, options: GpuUtilizationOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        options = self._options
        roomy = [backend for backend in candidates if not self._is_full(backend, now)] or candidates
        busy = known_or_typical(roomy, _utilization, now, options.max_age, 0.5)
        ranked = [
            (int(share / options.step + 1e-9), (backend.load.in_flight + 1) / backend.weight, self._rng.random(), place)
            for place, (backend, share) in enumerate(zip(roomy, busy, strict=True))
        ]
        return roomy[min(ranked)[3]]

    def _is_full(self, backend: Backend, now: float) -> bool:
        gauges = fresh(backend, now, self._options.max_age)
        gpu = None if gauges is None else gauges.gpu
        if gpu is None or not gpu.memory_total_bytes or gpu.memory_used_bytes is None:
            return False
        return gpu.memory_used_bytes / gpu.memory_total_bytes > self._options.memory_ceiling


def _utilization(gauges: Gauges) -> float | None:
    return None if gauges.gpu is None else gauges.gpu.utilization
