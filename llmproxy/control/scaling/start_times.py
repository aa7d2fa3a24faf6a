"""How long a replica takes from being asked for to its first token, learned from those that made it."""

from collections import deque
from typing import Final

UNKNOWN_S: Final = 90.0
"""Before the first one came up, where the configuration does not say."""
_REMEMBERED: Final = 8
_PATIENCE: Final = 3.0


class StartTimes:
    """`configured_s` is the configuration's `cold_start`, which is believed as long as it is given."""

    def __init__(self, configured_s: float | None, at_least_s: float) -> None:
        self.configured_s = configured_s
        self.at_least_s = at_least_s
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)

    def took(self, seconds: float) -> None:
        """A replica came up after so long."""
        self._seen.append(seconds)

    @property
    def expected_s(self) -> float:
        """What to reckon with: the longest of late."""
        if self.configured_s is not None:
            return self.configured_s
        return max(self._seen) if self._seen else UNKNOWN_S

    @property
    def limit_s(self) -> float:
        """A start that takes longer has failed. No replica is given up within its learned time."""
        return max(self.at_least_s, _PATIENCE * max([self.expected_s, *self._seen]))
