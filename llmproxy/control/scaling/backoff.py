"""When the next replica may be started, after some that failed; for each tier of capacity by itself."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

FIRST_S: Final = 2.0
LONGEST_S: Final = 300.0
WINDOW_S: Final = 900.0
"""Failures older than this are forgiven."""
AVOID_FIRST_S: Final = 60.0
AVOID_LONGEST_S: Final = 1800.0


class _Tier:
    """`avoid_until`: tiers whose starts do not fail are to be preferred until then."""

    def __init__(self) -> None:
        self.failures: deque[float] = deque(maxlen=32)
        self.failed_starts = 0
        """Since one came up."""
        self.avoid_until = -math.inf

    def failed(self, now: float) -> None:
        self.forgive(now)
        self.failures.append(now)

    def start_failed(self, now: float) -> None:
        avoid_s = min(AVOID_FIRST_S * 2.0 ** min(self.failed_starts, 16), AVOID_LONGEST_S)
        self.failed_starts += 1
        self.avoid_until = now + avoid_s

    def wait_s(self, now: float) -> float:
        self.forgive(now)
        failures = len(self.failures)
        if failures < 2:
            return 0.0
        return max(self.failures[-1] + min(FIRST_S * 2.0 ** (failures - 2), LONGEST_S) - now, 0.0)

    def forgive(self, now: float) -> None:
        while self.failures and now - self.failures[0] > WINDOW_S:
            self.failures.popleft()


class Backoff:
    """The first failure costs nothing, so that a killed replica is replaced at once; each further one within
    `WINDOW_S` doubles the wait. `tiers`: one without a name where there are none."""

    def __init__(self, tiers: Sequence[str] = ("",)) -> None:
        self._tiers = {tier: _Tier() for tier in tiers}

    def failed(self, now: float, tier: str | None = None, *, of_start: bool = False) -> None:
        """A start came to nothing (`of_start`), or a replica ended by itself. None: nobody knows of which tier, and it
        counts for all, as nobody's start."""
        for name, one in self._tiers.items():
            if tier in (None, name):
                one.failed(now)
                if of_start and tier is not None:
                    one.start_failed(now)

    def came_up(self, tier: str) -> None:
        """A start of it has come to its end."""
        if tier in self._tiers:
            one = self._tiers[tier]
            one.failed_starts, one.avoid_until = 0, -math.inf

    def wait_s(self, now: float, tier: str | None = None) -> float:
        """How long to wait still; 0 when one may be started. None: with the tier that has to wait longest."""
        return max(one.wait_s(now) for name, one in self._tiers.items() if tier in (None, name))

    def is_avoided(self, tier: str, now: float) -> bool:
        """Starts of it have failed lately (a spot market that is empty): others should serve the wish, if they can."""
        return now < self._tiers[tier].avoid_until
