"""From values to places on an axis, and where its ticks are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Protocol


class Scale(Protocol):
    """Maps values to 0 (the axis' begin) .. 1 (its end)."""

    def place(self, value: float) -> float: ...

    def ticks(self) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class Linear:
    """From `low` to `high`."""

    low: float
    high: float

    def place(self, value: float) -> float:
        return (value - self.low) / ((self.high - self.low) or 1.0)

    def ticks(self) -> Sequence[float]:
        """Four to nine round numbers."""
        span = (self.high - self.low) or 1.0
        step = 10.0 ** floor(log10(span))
        for part in (0.1, 0.2, 0.25, 0.5, 1.0):
            if span / (step * part) <= 8:
                step *= part
                break
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Log:
    """From `low` to `high`, both more than 0, by their logarithms."""

    low: float
    high: float

    def place(self, value: float) -> float:
        span = log10(self.high) - log10(self.low)
        return (log10(max(value, self.low)) - log10(self.low)) / (span or 1.0)

    def ticks(self) -> Sequence[float]:
        """Powers of ten, and 3 of each (and 2 and 5, where they are few)."""
        decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        steps = (1, 2, 5) if log10(self.high) - log10(self.low) < 1.5 else (1, 3)
        marks = (step * 10.0**decade for decade in decades for step in steps)
        return [mark for mark in marks if self.low * 0.999 <= mark <= self.high * 1.001]


def up_to(values: Sequence[float]) -> Linear:
    """From 0 to a round number beyond the largest."""
    top = max(values, default=0.0) or 1.0
    step = 10.0 ** floor(log10(top))
    return Linear(0.0, next(step * part for part in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * part >= top * 1.02))
