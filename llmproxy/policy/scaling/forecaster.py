"""A forecast of one series that has to earn its say.

Every minute a few styles of forecast, and "no forecast" (that it will be as it is now), predict the same minute ahead;
to each the 95th percentile of its own past errors is added, so that all are equally careful. The style with the lowest
pinball loss over the last day is the forecast, and it may act while its loss is lower than that of no forecast.
"""

from typing import Final

from llmproxy.policy.scaling.backtest import Candidate
from llmproxy.policy.scaling.series import History, Series, Style

STYLES: Final = (Style(0.3), Style(0.3, 0.5), Style(0.5), Style(0.5, 0.5), Style(0.7), Style(0.7, 0.5), Style(0.85))
_JUDGED_MIN: Final = 60


class _Entrant:
    """A style in the competition."""

    __slots__ = ("ahead", "candidate", "series")

    def __init__(self, style: Style, horizon: int, quantile: float) -> None:
        self.series = Series(style)
        self.candidate = Candidate(horizon, quantile)
        self.ahead: float | None = None


class Forecaster:
    """`horizon` in minutes. Fed one value a minute."""

    __slots__ = ("_best", "_entrants", "_history", "_horizon", "_none")

    def __init__(self, horizon: int, season_minutes: int, quantile: float) -> None:
        self._horizon = horizon
        self._history = History(season_minutes)
        self._entrants = [_Entrant(style, horizon, quantile) for style in STYLES]
        self._best = self._entrants[0]
        self._none = Candidate(horizon, quantile)

    def add(self, value: float) -> None:
        """The next minute."""
        self._history.add(value)
        rise = self._history.rise(self._horizon)
        for entrant in self._entrants:
            entrant.candidate.came(value)
            entrant.series.add(value)
            entrant.ahead = entrant.candidate.predict(entrant.series.ahead(self._horizon, rise))
        self._none.came(value)
        self._none.predict(value)
        self._best = min(self._entrants, key=lambda one: one.candidate.loss)

    @property
    def ahead(self) -> float | None:
        """What demand will hardly exceed in `horizon` minutes; None until enough is known."""
        return self._best.ahead

    @property
    def skill(self) -> float | None:
        """By what share the loss is lower than without a forecast; negative: it is higher. None until judged."""
        if self._none.judged < _JUDGED_MIN:
            return None
        return 1 - self._best.candidate.loss / self._none.loss if self._none.loss > 0 else 0.0

    @property
    def may_act(self) -> bool:
        """Whether it beats no forecast."""
        skill = self.skill
        return skill is not None and skill > 0
