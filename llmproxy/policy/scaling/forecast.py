"""`forecast`: what will be needed by the time a replica asked for now serves.

    - forecast: {horizon: cold_start + 60s, season: 24h}

The law's term h / (0.95 mu): h is the demand at the horizon that will hardly be exceeded (`forecaster`), mu what one
replica sustains. History is kept by the minute; the loop stores it (`new_minutes`) and gives it back to a fresh process
(`restore`), so a restart does not cost a day of learning. It says so when it may not act, and why.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import ClassVar, Final

from llmproxy.policy.scaling.base import Rates, Signals, Wanted
from llmproxy.policy.scaling.forecaster import Forecaster
from llmproxy.policy.scaling.options import Seconds, Share
from llmproxy.policy.scaling.quantities import duration_s
from llmproxy.policy.scaling.rounding import rounded_up
from llmproxy.policy.scaling.series import MINUTE_S

_UTILISATION: Final = 0.95
_DIMENSIONS: Final = ("requests_per_s", "prefill_tokens_per_s", "decode_tokens_per_s")
_AFTER_COLD_START: Final = re.compile(r"\s*cold_start\s*(?:\+(.+))?")
_COLD_START_S: Final = 120.0
"""Until one is known."""
_GAP_MAX: Final = 10
"""Minutes nothing is known of that are filled with the last value; behind a longer gap learning begins anew."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """So far ahead; after a cold start, where `after_cold_start`."""

    seconds: float
    after_cold_start: bool = False

    def minutes(self, cold_start_s: float | None) -> int:
        """In whole minutes, at least one."""
        before = (_COLD_START_S if cold_start_s is None else cold_start_s) if self.after_cold_start else 0.0
        return max(ceil((before + self.seconds) / MINUTE_S), 1)


def _horizon(value: object) -> Horizon:
    match = _AFTER_COLD_START.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is None:
            return Horizon(duration_s(value))
        return Horizon(duration_s(match[1]) if match[1] is not None else 0.0, after_cold_start=True)
    except ValueError as error:
        raise ValueError(f"{error}, or cold_start, or cold_start + 60s") from None


@dataclass(frozen=True, slots=True)
class ForecastOptions:
    """See the module."""

    horizon: Horizon = field(default=Horizon(60.0, after_cold_start=True), metadata={"read": _horizon})
    """How far ahead: a duration, `cold_start`, or `cold_start + 60s`."""
    season: Seconds = Seconds(86400.0)
    """After how long traffic looks alike."""
    quantile: Share = Share(0.95)
    """Which of its own past errors is added."""

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError("quantile must be between 0 and 100%")
        if self.season < 600 or self.season > 35 * 86400:
            raise ValueError("season must be between 10m and 35d")


@dataclass(frozen=True, slots=True)
class Minute:
    """Demand in one minute: `number` is Unix time over 60 (or monotonic, where no wall clock is known)."""

    number: int
    demand: Rates


class Forecast:
    """One forecaster for each dimension that is known."""

    options_type: ClassVar[type] = ForecastOptions

    def __init__(self, options: ForecastOptions) -> None:
        self._options = options
        self._horizon: int | None = None
        self._forecasters: dict[str, Forecaster] = {}
        self._last: Minute | None = None
        self._kept: list[Minute] = []
        self._new: list[Minute] = []

    def restore(self, minutes: Iterable[Minute]) -> None:
        """History from before this process, in order of time; before the first `want`."""
        self._kept.extend(minutes)

    @property
    def history_minutes(self) -> int:
        """How far back anything is of use to it."""
        return 3 * int(self._options.season // MINUTE_S)

    @property
    def is_used(self) -> bool:
        """Whether `want` was called: then it knows its history, and `restore` comes too late."""
        return self._horizon is not None

    def is_prepared(self, cold_start_s: float | None) -> bool:
        """Whether `want` is quick. Learning from a long history is not."""
        return self._horizon is not None and abs(self._options.horizon.minutes(cold_start_s) - self._horizon) <= 1

    def prepare(self, cold_start_s: float | None) -> None:
        """Learn from the history, which `want` would do otherwise. May run in a thread while nothing else is called."""
        if not self.is_prepared(cold_start_s):
            self._begin(self._options.horizon.minutes(cold_start_s))

    def new_minutes(self) -> list[Minute]:
        """What came to the history since the last call, to be stored."""
        new, self._new = self._new, []
        return new

    def skill(self) -> dict[str, float | None]:
        """Of each dimension: by what share the forecast beats none, on what has come true; None: not judged yet."""
        return {name: one.skill for name, one in self._forecasters.items()}

    def want(self, signals: Signals, now: float) -> Wanted | None:
        self.prepare(signals.cold_start_s)
        number = int((now if signals.unix_s is None else signals.unix_s) // MINUTE_S)
        if self._last is None or number > self._last.number:
            minute = Minute(number, signals.demand.last_60s)
            self._learn(minute)
            self._new.append(minute)
        best: Wanted | None = None
        for name, forecaster in self._forecasters.items():
            mu, ahead = getattr(signals.sustainable, name), forecaster.ahead
            if mu is None or mu <= 0 or ahead is None or not forecaster.may_act:
                continue
            wanted = rounded_up(ahead / _UTILISATION / mu)
            if best is None or wanted > best.replicas:
                reason = f"{ahead:.3g} {name} expected within {self._horizon} min, {mu:.3g} a replica"
                best = Wanted(wanted, reason, "forecast")
        return best

    def _begin(self, horizon: int) -> None:
        """Learn again from the history, for another horizon: a cold start was learned that is a different one."""
        self._horizon, self._last = horizon, None
        self._forecasters = {}
        minutes, self._kept = self._kept, []
        for minute in minutes:
            self._learn(minute)

    def _learn(self, minute: Minute) -> None:
        missed = minute.number - self._last.number - 1 if self._last is not None else 0
        if missed > _GAP_MAX or missed < 0:
            self._forecasters, self._kept, missed = {}, [], 0
        season = int(self._options.season // MINUTE_S)
        for name in _DIMENSIONS:
            value = getattr(minute.demand, name)
            if value is None:
                self._forecasters.pop(name, None)
                continue
            forecaster = self._forecasters.get(name)
            if forecaster is None:
                forecaster = Forecaster(self._horizon or 1, season, self._options.quantile)
                self._forecasters[name] = forecaster
            for _ in range(missed):
                forecaster.add(value)
            forecaster.add(value)
        self._last = minute
        self._kept.append(minute)
        if len(self._kept) > 3 * season:
            del self._kept[:season]
