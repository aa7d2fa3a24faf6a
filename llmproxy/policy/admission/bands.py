"""Which band goes next: the best in which anyone waits, unless a worse one is owed its least share.

While a better band is served, each worse one in which someone waits is owed `min_share` of that service; when what it
is owed would pay for its next request, that one goes first. So a flood of high priority slows the others down to their
share and never to nothing; and what they are owed is forgotten when nobody waits there any more.
"""

from collections.abc import Callable, Sequence


class Bands:
    """`count` bands, the best is 0."""

    __slots__ = ("_min_share", "_owed")

    def __init__(self, count: int, min_share: float) -> None:
        self._owed = [0.0] * count
        self._min_share = min_share

    def configure(self, min_share: float) -> None:
        self._min_share = min_share

    def order(self, waiting: Sequence[bool], cost: Callable[[int], float]) -> list[int]:
        """The bands in which anyone waits, who goes first first. `cost(band)` is that of its next request."""
        bands = [band for band, anyone in enumerate(waiting) if anyone]
        for band in reversed(bands[1:]):
            if self._owed[band] and self._owed[band] >= cost(band):
                bands.remove(band)
                bands.insert(0, band)
                break
        return bands

    def served(self, band: int, cost: float, waiting: Sequence[bool]) -> None:
        """One of `band` was served for `cost`."""
        self._owed[band] = max(self._owed[band] - cost, 0.0)
        for worse in range(band + 1, len(self._owed)):
            if waiting[worse]:
                self._owed[worse] += cost * self._min_share

    def emptied(self, band: int) -> None:
        """Nobody waits there any more."""
        self._owed[band] = 0.0
