"""How fast the queue moves: what a position means in seconds, and when to come back."""

from collections import deque
from math import ceil
from typing import Final

_REMEMBERED: Final = 256
_WINDOW_S: Final = 10.0
_KNOWN: Final = 2


class DrainRate:
    """Requests served out of the queue a second, over the last `window_s` seconds or 256 requests."""

    __slots__ = ("_served", "_window_s")

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._served: deque[float] = deque(maxlen=_REMEMBERED)
        self._window_s = window_s

    def served(self, now: float) -> None:
        self._served.append(now)

    def per_s(self, now: float) -> float | None:
        """None while too few were served lately to tell."""
        served = self._served
        while served and now - served[0] > self._window_s:
            served.popleft()
        if len(served) < _KNOWN or now <= served[0]:
            return None
        return len(served) / (now - served[0])

    def eta_s(self, ahead: int, now: float) -> float | None:
        """How long one waits with so many ahead of it; None: unknown."""
        rate = self.per_s(now)
        return None if rate is None else ahead / rate

    def retry_after_s(self, waiting: int, longest_s: float, now: float) -> int:
        """How long one turned away had better stay away: until the queue has moved on by its length. Whole seconds,
        at least 1 and at most `longest_s`, which it is when nothing moves."""
        longest = max(1, ceil(longest_s))
        eta_s = self.eta_s(waiting + 1, now)
        return longest if eta_s is None else min(max(1, ceil(eta_s)), longest)
