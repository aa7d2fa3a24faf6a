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
    """Between two sets of options that are best, in between; None where none serves as many in time."""
    frontier = best(points)
    if not frontier or frontier[-1].slo < slo:
        return None
    above = next(number for number, point in enumerate(frontier) if point.slo >= slo)
    if above == 0:
        return frontier[0].hours
    low, high = frontier[above - 1], frontier[above]
    share = (slo - low.slo) / (high.slo - low.slo)
    return exp(log(low.hours) + share * (log(high.hours) - log(low.hours)))
