"""A proxy's clock that tests put forward instead of waiting."""

import time


class Clock:
    """Monotonic seconds, ahead by what was jumped. Coarse timeouts notice a jump at their next sweep."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def jump(self, seconds: float) -> None:
        self._ahead_s += seconds
