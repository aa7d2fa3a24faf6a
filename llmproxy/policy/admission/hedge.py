"""Hedging: a second attempt elsewhere for a request whose first token is unusually late. Off unless asked for.

It may happen when the first token is later than 95 % of them were lately, at most `share` of all requests get one, and
none while anybody waits for a place: a hedge makes a saturated fleet slower. This only decides; the driver sends the
second attempt and aborts the slower of the two.

The 95th percentile is learned by stochastic approximation in steps relative to itself: up by 19 parts for each first
token that was later, down by one for each that was not.
"""

from dataclasses import dataclass
from typing import Final

_QUANTILE: Final = 0.95
_STEP: Final = 0.1
_KNOWN_AFTER: Final = 50
_BURST: Final = 10.0


@dataclass(frozen=True, slots=True)
class HedgeOptions:
    share: float = 0.0
    """Of all requests, how many may be hedged; 0 is never."""
    least_s: float = 0.05
    """Never sooner than this."""


class Hedges:
    """The budget and the learned percentile of one pool."""

    __slots__ = ("_budget", "_options", "_seen", "ttft_p95_s")

    def __init__(self, options: HedgeOptions) -> None:
        self._options = options
        self._budget = 0.0
        self._seen = 0
        self.ttft_p95_s = 0.0

    def sent(self) -> None:
        """A request was sent (not a hedge): it adds its share to the budget."""
        self._budget = min(self._budget + self._options.share, _BURST)

    def first_token(self, ttft_s: float) -> None:
        """A first token came so long after its request was sent."""
        self._seen += 1
        if self._seen == 1:
            self.ttft_p95_s = ttft_s
        elif ttft_s > self.ttft_p95_s:
            self.ttft_p95_s *= 1.0 + _STEP * _QUANTILE
        else:
            self.ttft_p95_s *= 1.0 - _STEP * (1.0 - _QUANTILE)

    def after_s(self) -> float | None:
        """How long after sending a request one may ask for its hedge; None: not at all."""
        if not self._options.share or self._seen < _KNOWN_AFTER:
            return None
        return max(self.ttft_p95_s, self._options.least_s)

    def try_hedge(self, waited_s: float, *, saturated: bool) -> bool:
        """Whether to hedge a request that was sent `waited_s` ago; True takes it out of the budget."""
        after_s = self.after_s()
        if after_s is None or saturated or waited_s < after_s or self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True

    def give_back(self) -> None:
        """The hedge could not be sent after all."""
        self._budget = min(self._budget + 1.0, _BURST)
