"""One series of minutes, and what the next ones will bring: damped trend, and the shape of the season before.

Level and trend follow Holt's double exponential smoothing; the trend is damped (Gardner & McKenzie, 1985), since no
trend lasts. To that may come half of how much the same minutes of the last season (yesterday) rose or fell: half, as
yesterday is a guess too. Seasons are compared through averages over eleven minutes, because a minute's noise does not
come back a day later. How quickly the level follows, and whether yesterday counts, is a `Style`: what is best differs
from day to day, so several are kept and `forecaster` lets them compete.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

MINUTE_S: Final = 60.0
_TREND: Final = 0.05
_DAMPING: Final = 0.8
_SMOOTHED: Final = 5
"""Minutes on either side."""


@dataclass(frozen=True, slots=True)
class Style:
    """`level`: the weight of the newest minute; `shape`: of what the last season did."""

    level: float
    shape: float = 0.0


class History:
    """The values of the last season, by the minute, shared by the series made of them."""

    __slots__ = ("_kept", "_season", "_values")

    def __init__(self, season_minutes: int) -> None:
        self._season = season_minutes
        self._kept = season_minutes + _SMOOTHED + 1
        self._values: deque[float] = deque(maxlen=self._kept)

    def add(self, value: float) -> None:
        """The next minute."""
        self._values.append(value)

    def rise(self, minutes: int) -> float:
        """By how much demand rose, a season ago, in the `minutes` from then on; 0 until a season is known."""
        if len(self._values) < self._kept or minutes + _SMOOTHED >= self._season:
            return 0.0
        then = len(self._values) - 1 - self._season
        return self._smooth(then + minutes) - self._smooth(then)

    def _smooth(self, middle: int) -> float:
        first, last = max(middle - _SMOOTHED, 0), min(middle + _SMOOTHED, len(self._values) - 1)
        return sum(self._values[at] for at in range(first, last + 1)) / (last + 1 - first)


class Series:
    """Level and trend of one style."""

    __slots__ = ("_level", "_style", "_trend")

    def __init__(self, style: Style) -> None:
        self._style = style
        self._level: float | None = None
        self._trend = 0.0

    def add(self, value: float) -> None:
        """The next minute."""
        if self._level is None:
            self._level = value
            return
        before, damped = self._level, _DAMPING * self._trend
        weight = self._style.level
        self._level = weight * value + (1 - weight) * (before + damped)
        self._trend = _TREND * (self._level - before) + (1 - _TREND) * damped

    def ahead(self, minutes: int, rise: float) -> float:
        """The minute that comes `minutes` after the last one, which `rise` a season ago; 0 before any."""
        if self._level is None:
            return 0.0
        trend = self._trend * _DAMPING * (1 - _DAMPING**minutes) / (1 - _DAMPING)
        return max(self._level + trend + self._style.shape * rise, 0.0)
