"""Quantiles of what happened between two readings of a histogram whose counts only grow."""

from collections.abc import Callable

from llmproxy.policy.scaling.base import Percentiles
from llmproxy.telemetry.metrics import Histogram, Series


def merged(series: list[Series], which: Callable[[Series], Histogram]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The counts of several histograms with the same bounds, added up."""
    found = [which(one) for one in series]
    if not found:
        return (), ()
    return tuple(map(sum, zip(*(one.counts for one in found), strict=True))), found[0].bounds


def difference(now: tuple[int, ...], before: tuple[int, ...]) -> list[int]:
    return [count - (before[index] if index < len(before) else 0) for index, count in enumerate(now)]


def percentiles(now: tuple[int, ...], before: tuple[int, ...], bounds: tuple[float, ...]) -> Percentiles:
    counts = difference(now, before)
    return Percentiles(*(_quantile(counts, bounds, share) for share in (0.50, 0.95, 0.99)))


def _quantile(counts: list[int], bounds: tuple[float, ...], share: float) -> float | None:
    """Linear inside its bucket; what lies above the last bound counts as the last bound."""
    total = sum(counts)
    if total <= 0:
        return None
    rank, below = share * total, 0
    for index, count in enumerate(counts):
        if index >= len(bounds):
            return bounds[-1]
        if below + count >= rank and count:
            low = bounds[index - 1] if index else 0.0
            return low + (bounds[index] - low) * (rank - below) / count
        below += count
    return bounds[-1]


def above(counts: list[int], bounds: tuple[float, ...], limit: float) -> float:
    """How many lie above `limit`, taking each bucket as evenly filled."""
    found = 0.0
    for index, count in enumerate(counts):
        low = bounds[index - 1] if index else 0.0
        high = bounds[index] if index < len(bounds) else float("inf")
        if limit <= low:
            found += count
        elif limit < high:
            found += count * (high - limit) / (high - low) if high != float("inf") else count
    return found
