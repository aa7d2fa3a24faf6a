"""From what is wanted to what is done about it now: windows, and steps.

    behavior: {up: {window: 0s, max_step: 2, period: 60s}, down: {window: 300s, max_step: 1, period: 120s}}

`window`: up only to the lowest that was wanted within it, down only to the highest, so that one noisy moment moves
nobody. An empty fleet waits for no window, as whoever comes waits for it. `max_step`: no more replicas than that are
added (removed) within any `period`. Without `max_step` there is no limit.
"""

from collections import deque
from dataclasses import dataclass, field

from llmproxy.policy.scaling.highest import Highest


@dataclass(frozen=True, slots=True)
class Direction:
    """How fast to go one way."""

    window_s: float = 0.0
    max_step: int | None = None
    period_s: float = 60.0

    def __post_init__(self) -> None:
        if self.window_s < 0 or self.period_s <= 0:
            raise ValueError("window cannot be negative, and period must be more than 0")
        if self.max_step is not None and self.max_step < 1:
            raise ValueError("max_step must be at least 1")


@dataclass(frozen=True, slots=True)
class Behavior:
    """How fast to go up and down."""

    up: Direction = field(default_factory=Direction)
    down: Direction = field(default_factory=lambda: Direction(window_s=300.0))


class Stabiliser:
    """Remembers what was wanted, and what was done."""

    __slots__ = ("_behavior", "_done", "_highest", "_lowest")

    def __init__(self, behavior: Behavior) -> None:
        self._behavior = behavior
        self._lowest = Highest(lowest=True)
        self._highest = Highest()
        self._done: deque[tuple[float, int]] = deque()

    def found(self, actual: int, now: float) -> None:
        """So many were there when a loop began: they count as wanted then. It knows of no traffic yet, and whoever
        started them did."""
        self._highest.add(actual, now, self._behavior.down.window_s)

    def steady(self, wanted: int, actual: int, now: float) -> tuple[int, str]:
        """How many replicas to have now, and why not `wanted` where it is not (else "")."""
        up, down = self._behavior.up, self._behavior.down
        least = self._lowest.add(wanted, now, up.window_s)
        most = self._highest.add(wanted, now, down.window_s)
        if least > actual or (not actual and wanted > 0):
            return self._stepped(actual, max(least, 1), up, now)
        if most < actual:
            return self._stepped(actual, most, down, now)
        if wanted > actual:
            return actual, f"{wanted} not wanted for all of {up.window_s:g} s yet"
        if wanted < actual:
            return actual, f"up to {most} wanted within {down.window_s:g} s"
        return actual, ""

    def done(self, change: int, now: float) -> None:
        """So many replicas were added (removed: negative) at `now`."""
        if change:
            self._done.append((now, change))

    def _stepped(self, actual: int, wanted: int, way: Direction, now: float) -> tuple[int, str]:
        if way.max_step is None:
            return wanted, ""
        longest = max(self._behavior.up.period_s, self._behavior.down.period_s)
        while self._done and self._done[0][0] <= now - longest:
            self._done.popleft()
        sign = 1 if wanted > actual else -1
        spent = sum(abs(change) for at, change in self._done if change * sign > 0 and at > now - way.period_s)
        step = min(abs(wanted - actual), max(way.max_step - spent, 0))
        if step == abs(wanted - actual):
            return wanted, ""
        return actual + sign * step, f"{wanted} by at most {way.max_step} in {way.period_s:g} s"
