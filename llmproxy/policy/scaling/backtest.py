"""A way to predict, with its own past errors added, and how it would have fared.

What is predicted is not the likeliest value but one that demand exceeds no more often than one time in twenty (or as
often as is asked for): the point prediction plus the 95th percentile of what it lately fell short by. The measure of
such a quantile is the pinball loss, which charges nineteen times as much for falling short as for being too high; each
prediction was made before the value it is judged by was known.
"""

from bisect import bisect_left, insort
from collections import deque
from typing import Final

_ERRORS_MAX: Final = 720
"""Twelve hours of minutes: long enough for a percentile, short enough to forget a quiet week."""
_ERRORS_MIN: Final = 30
_LOSS_MEMORY: Final = 1 - 1 / 1440


class Candidate:
    """Predictions of one kind, made `horizon` minutes ahead, that come true one by one."""

    __slots__ = ("_errors", "_horizon", "_open", "_order", "_quantile", "judged", "loss")

    def __init__(self, horizon: int, quantile: float) -> None:
        self._horizon = horizon
        self._quantile = quantile
        self._open: deque[tuple[float, float | None]] = deque()
        self._errors: list[float] = []
        self._order: deque[float] = deque()
        self.loss = 0.0
        """Pinball loss summed over the predictions judged, the last day's mostly."""
        self.judged = 0

    def came(self, value: float) -> None:
        """The next minute's value is known."""
        if len(self._open) < self._horizon:
            return
        point, high = self._open.popleft()
        if high is not None:
            short = value - high
            loss = self._quantile * short if short > 0 else (self._quantile - 1) * short
            self.loss = _LOSS_MEMORY * self.loss + loss
            self.judged += 1
        error = value - point
        insort(self._errors, error)
        self._order.append(error)
        if len(self._order) > _ERRORS_MAX:
            self._errors.pop(bisect_left(self._errors, self._order.popleft()))

    def predict(self, point: float) -> float | None:
        """Note a new prediction, and give what is not likely to be exceeded; None until enough errors are known."""
        high = None
        if len(self._errors) >= _ERRORS_MIN:
            high = max(point + self._errors[int(self._quantile * (len(self._errors) - 1))], 0.0)
        self._open.append((point, high))
        return high
