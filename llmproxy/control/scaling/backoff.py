"""When the next replica may be started, after some that failed."""

from collections import deque
from typing import Final

FIRST_S: Final = 2.0
LONGEST_S: Final = 300.0
WINDOW_S: Final = 900.0
"""Failures older than this are forgiven."""


class Backoff:
    """The first failure costs nothing, so that a killed replica is replaced at once; each further one within
    `WINDOW_S` doubles the wait."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=32)

    @property
    def failures(self) -> int:
        """How many count."""
        return len(self._failures)

    def failed(self, now: float) -> None:
        """A start came to nothing, or a replica ended by itself."""
        self._forgive(now)
        self._failures.append(now)

    def wait_s(self, now: float) -> float:
        """How long to wait still; 0 when one may be started."""
        self._forgive(now)
        failures = len(self._failures)
        if failures < 2:
            return 0.0
        return max(self._failures[-1] + min(FIRST_S * 2.0 ** (failures - 2), LONGEST_S) - now, 0.0)

    def _forgive(self, now: float) -> None:
        while self._failures and now - self._failures[0] > WINDOW_S:
            self._failures.popleft()
