"""Closing the loop on the objective: utilisation is lowered while the error budget burns.

With an objective of 99.5 % half a per cent of the requests may miss. The misses of the last hours, averaged so that
old ones fade, are compared with that. Beyond the whole budget rho falls in proportion to what is overdrawn, and rises
again as the misses fade: headroom where the law's own margin has been shown to be too small for this traffic, and only
there. A budget that hours of traffic leave unspent shows the opposite, and lets rho rise a little, by much less: that
nothing happened proves less than that something did. The hours make it slow on purpose: whatever happens within
minutes is the business of the backlog term, and answering both would swing.
"""

from typing import Final

MEMORY_S: Final = 6 * 3600.0
FALL: Final = 0.25
"""How far rho falls, in itself, for each whole budget that is overdrawn."""
RISE: Final = 0.06
"""How far it rises, in itself, when nothing of the budget was spent for long."""


class ErrorBudget:
    """How much utilisation the budget leaves. `objective` 0 leaves `target` alone."""

    __slots__ = ("_allowed", "_at", "_misses", "_target", "_target_min", "_watched")

    def __init__(self, objective: float, target: float, target_min: float) -> None:
        self._allowed = 1 - objective if objective else None
        self._target, self._target_min = target, target_min
        self._misses = 0.0
        self._watched = 0.0
        """How much of the memory is of traffic that was seen; the rest is from before."""
        self._at: float | None = None

    @property
    def burnt(self) -> float:
        """The share of requests that missed lately over what may; 1 is the whole budget. 0 while none is set."""
        return self._misses / self._allowed if self._allowed else 0.0

    def rho(self, miss_rate: float | None, now: float) -> float:
        """The utilisation to aim at, given the share of requests that missed lately; None is unknown."""
        if self._at is not None and miss_rate is not None:
            kept = 0.5 ** (max(now - self._at, 0.0) / MEMORY_S)
            self._misses = kept * self._misses + (1 - kept) * miss_rate
            self._watched = kept * self._watched + (1 - kept)
        self._at = now
        if not self._allowed:
            return self._target
        if self.burnt > 1:
            return max(self._target / (1 + FALL * (self.burnt - 1)), self._target_min)
        return min(self._target * (1 + RISE * max(self._watched - self.burnt, 0.0)), 1.0)
