"""Time as an argument: `Clock` is a callable giving monotonic seconds; `ManualClock` is one that tests drive."""

from collections.abc import Callable

Clock = Callable[[], float]


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Move forward by `seconds` and return the new time."""
        self.now += seconds
        return self.now
