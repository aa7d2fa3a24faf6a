"""The fleet that is scaled, in ticks of a second."""

from collections import deque
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Model:
    """See the package."""

    cold_start_s: int = 120
    begins_per_s: float = 4.0
    """Requests that one replica begins in a second."""
    lasts_s: int = 8
    wait_max_s: int = 2
    """Waiting no longer is within the objective."""
    replicas_max: int = 200
    replicas_min: int = 1

    @property
    def running_max(self) -> float:
        """Requests that run at once on a replica that is full."""
        return self.begins_per_s * self.lasts_s


_MISSES_S: Final = 300
"""Over which the share of misses is told."""
_STEP_S: Final = 5


class Fleet:
    """Call `tick` once a second, and `scale` when a controller says so."""

    __slots__ = (
        "_begun",
        "_begun_total",
        "_bill_s",
        "_cohorts",
        "_marks",
        "_model",
        "_starting",
        "_told",
        "arrived",
        "draining",
        "events",
        "in_time",
        "judged",
        "now",
        "ready",
        "running",
    )

    def __init__(self, model: Model, replicas: int) -> None:
        self._model = model
        self.now = 0
        self.ready = replicas
        self._starting: deque[int] = deque()
        """When each will serve."""
        self.draining: deque[int] = deque()
        """When each will be gone."""
        self.arrived = 0
        self._begun_total = 0.0
        self._begun: deque[float] = deque([0.0] * model.lasts_s, maxlen=model.lasts_s)
        """Requests begun in each of the last seconds that are still running."""
        self.running = 0.0
        self._cohorts: deque[tuple[int, int]] = deque()
        """Of the last seconds: arrivals before it, and in it."""
        self.judged = 0
        self.in_time = 0.0
        self._bill_s = 0
        self.events = 0
        self._marks: deque[tuple[int, float]] = deque(maxlen=_MISSES_S // _STEP_S + 1)
        self._told = 0

    @property
    def starting(self) -> int:
        return len(self._starting)

    @property
    def waiting(self) -> float:
        """Requests that have not begun."""
        return self.arrived - self._begun_total

    @property
    def replica_hours(self) -> float:
        return self._bill_s / 3600

    @property
    def attained(self) -> float:
        """Share of requests within the objective."""
        return self.in_time / self.judged if self.judged else 1.0

    def tick(self, count: int) -> None:
        """A second passes in which `count` requests arrive."""
        model, starting, draining, cohorts, begun = (
            self._model,
            self._starting,
            self.draining,
            self._cohorts,
            self._begun,
        )
        now = self.now
        while starting and starting[0] <= now:
            starting.popleft()
            self.ready += 1
        while draining and draining[0] <= now:
            draining.popleft()
        cohorts.append((self.arrived, count))
        self.arrived += count
        waiting, room = self.arrived - self._begun_total, self.ready * model.begins_per_s
        begins = waiting if waiting < room else room
        self.running += begins - begun[0]
        begun.append(begins)
        self._begun_total += begins
        if len(cohorts) > model.wait_max_s:
            self._judge()
        self._bill_s += self.ready + len(starting) + len(draining)
        self.now = now + 1

    def finish(self) -> None:
        """Nobody arrives any more: serve who waits, as far as it decides on the objective, at no cost."""
        bill = self._bill_s
        for _ in range(self._model.wait_max_s):
            self.tick(0)
        self._bill_s = bill

    def miss_rate(self) -> float | None:
        """The share of misses among those judged in the last five minutes. Ask every five seconds."""
        marks = self._marks
        marks.append((self.judged, self.in_time))
        judged = self.judged - marks[0][0]
        return 1 - (self.in_time - marks[0][1]) / judged if judged else None

    def scale(self, replicas: int) -> int:
        """So many ready and starting, within the model's bounds; gives the change. What starts goes first."""
        model = self._model
        replicas = min(max(replicas, model.replicas_min), model.replicas_max)
        change = replicas - self.ready - len(self._starting)
        if change > 0:
            self._starting.extend([self.now + model.cold_start_s] * change)
        elif change < 0:
            surplus = -change
            while surplus and self._starting:
                self._starting.pop()
                surplus -= 1
            self.ready -= surplus
            self.draining.extend([self.now + model.lasts_s] * surplus)
        self.events += change != 0
        return change

    def _judge(self) -> None:
        """Those who arrived `wait_max_s` ago: who of them has begun by now?"""
        before, count = self._cohorts.popleft()
        begun = self._begun_total - before
        self.judged += count
        if begun >= count:
            self.in_time += count
        elif begun > 0:
            self.in_time += begun
