"""The shape of a lab, and of what it finds."""

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from bench.labs.failure import LabFailed
from bench.labs.stage import Stage


class Sense(Enum):
    """Which side of its bound a figure has to be on; the value is how the bound is shown."""

    MOST = "<="
    LEAST = ">="


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure of a lab and the bound it is held against. `unit` is empty for counts; `notes` say what was wrong."""

    figure: str
    found: float
    bound: float
    unit: str = ""
    sense: Sense = Sense.MOST
    notes: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        return self.found <= self.bound if self.sense is Sense.MOST else self.found >= self.bound


@dataclass(frozen=True, slots=True)
class Lab:
    """One experiment. `run` starts what it needs on the stage, which ends all of it."""

    name: str
    title: str
    run: Callable[[Stage], Awaitable[list[Finding]]]
    limit_s: float = 30.0
    """A lab that takes longer has failed."""
    on_request: bool = False
    """Held only when it is named: it takes long, or needs more than the others."""


def percentile(values: Iterable[float], percent: float) -> float:
    """By nearest rank: a value that occurred. Of fewer than 100 values the 99th is the largest."""
    ordered = sorted(values)
    if not ordered:
        raise LabFailed("nothing was measured")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def never(figure: str, flaws: Iterable[str]) -> Finding:
    """What must not happen at all, each time it did in words."""
    notes = tuple(flaws)
    return Finding(figure, len(notes), 0, notes=notes)


def no_more_than(figure: str, found: float, bound: float, unit: str = "") -> Finding:
    return Finding(figure, found, bound, unit, Sense.MOST)


def no_less_than(figure: str, found: float, bound: float, unit: str = "") -> Finding:
    return Finding(figure, found, bound, unit, Sense.LEAST)


def ms(seconds: float) -> float:
    return seconds * 1e3
