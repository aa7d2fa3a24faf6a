"""Five cron fields in a time zone, and when they last came round.

`minute hour day month weekday`: `*`, numbers, names (`mon`, `jan`), lists, ranges and steps; day 7 is Sunday, as is 0,
so `6-7` is the weekend. As in every cron, when both day and weekday are given either is enough. `@daily` and its like
work. Times go by the clock on the wall: one that the clock jumps over in spring comes at the jump, one that it shows
twice in autumn comes the first time only.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DAYS_MAX: Final = 366 * 8 + 3
"""Past this no day comes that has not come before: 29 February may be eight years away."""
_SLACK: Final = timedelta(days=1)
"""More than any clock is ever set back."""
_MINUTE_S: Final = 60.0
_SHORT: Final[Mapping[str, str]] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[tuple[tuple[str, int, int, tuple[str, ...]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)


class CronError(ValueError):
    """Fields that cannot be used; `column` counts from 1 in the text."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message} (column {column})")
        self.column = column


def zone(name: str) -> ZoneInfo:
    """The time zone `name`, such as `Asia/Karachi`. Raises `ValueError`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone that this machine knows, such as Asia/Karachi or UTC") from None


class Cron:
    """`Cron("0 9 * * 1-5", zone("Asia/Karachi"))`. Raises `CronError`."""

    def __init__(self, text: str, tz: ZoneInfo) -> None:
        self.text = text
        self._tz = tz
        fields = _parsed(text)
        self._minutes, self._hours, self._days, self._months, weekdays = (values for values, _ in fields)
        self._weekdays = frozenset(day % 7 for day in weekdays)
        self._either = not fields[2][1] and not fields[4][1]
        self._cached: tuple[int, float | None] = (-1, None)
        if self._found(datetime(2000, 3, 1), -1) is None:
            raise CronError("no day is like this", 1)

    def previous(self, unix_s: float) -> float | None:
        """When it last came round at or before `unix_s` (both Unix seconds)."""
        minute = int(unix_s // _MINUTE_S)
        if self._cached[0] != minute:
            self._cached = minute, self._previous(unix_s)
        return self._cached[1]

    def next(self, unix_s: float) -> float | None:
        """When it comes round next after `unix_s`."""
        wall = datetime.fromtimestamp(unix_s, self._tz).replace(tzinfo=None, fold=0)
        for moment in self._walk(wall - _SLACK, 1):
            at = self._instant(moment)
            if at > unix_s:
                return at
        return None

    def _previous(self, unix_s: float) -> float | None:
        wall = datetime.fromtimestamp(unix_s, self._tz).replace(tzinfo=None, fold=0)
        for moment in self._walk(wall + _SLACK, -1):
            at = self._instant(moment)
            if at <= unix_s:
                return at
        return None

    def _found(self, wall: datetime, direction: int) -> datetime | None:
        return next(self._walk(wall, direction), None)

    def _walk(self, wall: datetime, direction: int) -> Iterator[datetime]:
        """Times on the wall that fit, from `wall` on, forwards or backwards."""
        forwards = direction > 0
        hours = sorted(self._hours, reverse=not forwards)
        minutes = sorted(self._minutes, reverse=not forwards)
        day = wall.date()
        for _ in range(_DAYS_MAX):
            if self._fits(day):
                for hour in hours:
                    for minute in minutes:
                        moment = datetime(day.year, day.month, day.day, hour, minute)
                        if (moment >= wall) if forwards else (moment <= wall):
                            yield moment
            day += timedelta(days=direction)

    def _fits(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        by_day, by_weekday = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return (by_day or by_weekday) if self._either else (by_day and by_weekday)

    def _instant(self, wall: datetime) -> float:
        """Unix seconds at which the clock first shows `wall`, or jumps over it."""
        moment = wall.replace(tzinfo=self._tz)
        at = moment.timestamp()
        if datetime.fromtimestamp(at, self._tz).replace(tzinfo=None, fold=0) == wall:
            return at
        # Jumped over: the jump lies between what the offsets before and after it make of this time.
        early, late = moment.replace(fold=1).timestamp(), at
        before = datetime.fromtimestamp(early, self._tz).utcoffset()
        while late - early > 1:
            middle = (early + late) // 2
            if datetime.fromtimestamp(middle, self._tz).utcoffset() == before:
                early = middle
            else:
                late = middle
        return late


def _parsed(text: str) -> list[tuple[frozenset[int], bool]]:
    """Of each field its values, and whether it begins with a star."""
    text = _SHORT.get(text.strip().lower(), text)
    words: list[tuple[str, int]] = []
    column = 1
    for part in text.split(" "):
        if part.strip():
            words.append((part.strip(), column))
        column += len(part) + 1
    if len(words) != len(_FIELDS):
        names = " ".join(name for name, *_ in _FIELDS)
        raise CronError(f"five fields are needed ({names}), not {len(words)}", 1)
    return [
        (_values(word, column, *field), word.startswith("*"))
        for (word, column), field in zip(words, _FIELDS, strict=True)
    ]


def _values(word: str, column: int, name: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        span, slash, step_text = part.partition("/")
        first_text, dash, last_text = span.partition("-")
        step = _number(step_text, column, f"{name} step", 1, high, ()) if slash else 1
        if span == "*":
            first, last = low, high - (name == "weekday")
        else:
            first = _number(first_text, column, name, low, high, names)
            last = _number(last_text, column, name, low, high, names) if dash else (high if slash else first)
        if name == "weekday" and last == 0 and first > 0 and dash:
            last = 7  # fri-sun
        if last < first:
            raise CronError(f"{name} {span!r} ends before it begins", column)
        found.update(range(first, last + 1, step))
        column += len(part) + 1
    return frozenset(found)


def _number(text: str, column: int, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + (1 if names is _MONTHS else 0)
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not low <= int(text) <= high:
        raise CronError(f"{name} {text!r} must be a number from {low} to {high}", column)
    return int(text)
