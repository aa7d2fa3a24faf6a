"""Hours at equal SLO: what a rival would have needed to serve as many in time as we did."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log


@dataclass(frozen=True, slots=True)
class Point:
    """What one set of options came to."""

    slo: float
    hours: float
    label: str


def best(points: Sequence[Point]) -> list[Point]:
    """Those that nobody beats in both, the worst SLO first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.slo, one.hours)):
        if not kept or point.hours < kept[-1].hours:
            kept.append(point)
    return kept[::-1]


def hours_at(points: Sequence[Point], slo: float) -> float | None:
    """As few as any two sets of options come to in between; None where none serves as many in time."""
    frontier = best(points)
    enough = [point for point in frontier if point.slo >= slo]
    if not enough:
        return None
    # Not only the two nearest: options tried between two better ones would make a rival look worse.
    between = (_between(low, high, slo) for low in frontier if low.slo < slo for high in enough)
    return min(between, default=enough[0].hours)


def _between(low: Point, high: Point, slo: float) -> float:
    share = (slo - low.slo) / (high.slo - low.slo)
    return exp(log(low.hours) + share * (log(high.hours) - log(low.hours)))
