"""What is learned of waiting: how far an expected wait can be trusted, and how long first tokens take.

The wait that a request is told when it comes is its position over the pace of the queue. Better priorities that are yet
to come, deadlines nearer than its own and requests larger than most make it longer. So for each priority, and waits of
each length that still make sense (powers of two), a factor is learned: it goes up with each request that was let wait
and could not make its deadline after all, and down with each that was served, such that `missing` of those who wait do
so in vain in the long run. Whoever would be one of them is better told at once. Deadlines that pass together, as after
a stall, are one event: else what took a second would be remembered for minutes.
"""

from math import frexp
from typing import Final

_STEP: Final = 0.05
_LEAST: Final = 0.25
_MOST: Final = 4.0
_LEARNING: Final = 0.1


class Patience:
    """`missing`: the share of those who wait that may do so in vain."""

    __slots__ = ("_factors", "_missing", "_raised")

    def __init__(self, missing: float = 0.05) -> None:
        self._missing = missing
        self._factors: dict[tuple[int, int], float] = {}
        self._raised: set[tuple[int, int]] = set()

    def factor(self, band: int, worth_s: float) -> float:
        """By what to multiply the expected wait of one for whom it makes sense to wait `worth_s`."""
        return self._factors.get(_kind(band, worth_s), 1.0)

    def learn(self, band: int, worth_s: float, in_vain: bool) -> None:
        """One such was served, or its deadline passed while it waited."""
        kind = _kind(band, worth_s)
        if in_vain:
            if kind in self._raised:
                return
            self._raised.add(kind)
        step = _STEP * (1.0 - self._missing if in_vain else -self._missing)
        self._factors[kind] = min(max(self._factors.get(kind, 1.0) + step, _LEAST), _MOST)

    def looks_again(self) -> None:
        """From now on deadlines that pass are another event."""
        self._raised.clear()


class FirstTokens:
    """Times to first tokens by the size of the request, for routing policies that have no estimate."""

    __slots__ = ("_means",)

    def __init__(self) -> None:
        self._means: dict[int, float] = {}

    def expected_s(self, size: int) -> float:
        """From sending a request of `size` bytes to its first token; 0 where nothing is known."""
        return self._means.get(size.bit_length(), 0.0)

    def learn(self, size: int, ttft_s: float) -> None:
        """It took so long."""
        kind = size.bit_length()
        mean = self._means.get(kind, ttft_s)
        self._means[kind] = mean + _LEARNING * (ttft_s - mean)


def _kind(band: int, worth_s: float) -> tuple[int, int]:
    return band, frexp(max(worth_s, 0.01))[1]
