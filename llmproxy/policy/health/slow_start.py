"""A recovered backend's share of its weight, growing in steps: its cache is cold, and it may not be well yet."""

_STEPS = 10
_NEVER = float("inf")


class SlowStart:
    """From a tenth to all of the weight over `over_s` seconds. Steps, because each one has everything refreshed."""

    __slots__ = ("_began", "_over_s", "due")

    def __init__(self) -> None:
        self.stop()

    def begin(self, now: float, over_s: float) -> None:
        """The backend is back."""
        self._began = now
        self._over_s = over_s
        self.due = now if over_s > 0.0 else _NEVER

    def stop(self) -> None:
        """Full weight, no steps to come."""
        self._began = self._over_s = 0.0
        self.due = _NEVER

    def factor(self, now: float) -> float:
        """What part of the weight counts at `now`, above 0 and at most 1. Sets when the next step is `due`."""
        if self.due == _NEVER:
            return 1.0
        # The sliver lets a step that is due exactly now be reached in spite of rounding.
        step = int((now - self._began) / self._over_s * _STEPS + 1e-6)
        if step >= _STEPS:
            self.stop()
            return 1.0
        self.due = self._began + (step + 1) * self._over_s / _STEPS
        return max(step, 1) / _STEPS
