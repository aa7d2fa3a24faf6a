"""`schedule`: bounds by the calendar.

    - schedule:
        - {cron: "0 9 * * 1-5", tz: Asia/Karachi, min: 4, max: 10}
        - {cron: "0 18 * * 1-5", tz: Asia/Karachi, min: 2, max: 4}
        - {cron: "45 6 * * *", tz: Asia/Karachi, prewarm: 3, for: 30m}

Among the entries with `min` or `max`, the one that came round last is in force until another one does, or until its
own `for` is over. `prewarm` is a floor beside them, for as long as its `for` says (an hour, unless given): it makes
replicas that stand warm when the spike comes, and bounds nothing from above. Nothing is remembered: what is in force
follows from the clock alone, so a proxy that starts in the middle of the day knows it too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self
from zoneinfo import ZoneInfo

from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.cron import Cron, zone
from llmproxy.policy.scaling.options import suggestion
from llmproxy.policy.scaling.quantities import duration_s

PREWARM_S: Final = 3600.0
_KEYS: Final = ("cron", "tz", "min", "max", "prewarm", "for")
_FOR_EVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Entry:
    """`tz` is checked when the entry is read."""

    cron: Cron
    tz: ZoneInfo
    min: int | None
    max: int | None
    prewarm: int | None
    for_s: float


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    entries: tuple[Entry, ...]

    @classmethod
    def parse(cls, given: object) -> Self:
        """From the list in the configuration. Raises `ValueError`."""
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise ValueError("options must be a list of entries with cron, tz, and min, max or prewarm")
        return cls(tuple(_entry(item, number) for number, item in enumerate(given)))


class Schedule:
    """Says what the calendar says."""

    options_type: ClassVar[type] = ScheduleOptions

    def __init__(self, options: ScheduleOptions) -> None:
        self._bounds = [entry for entry in options.entries if entry.prewarm is None]
        self._prewarms = [entry for entry in options.entries if entry.prewarm is not None]

    def want(self, signals: Signals, now: float) -> Wanted | None:
        if signals.unix_s is None:
            return None
        entry = self._in_force(signals.unix_s)
        floor = 0 if entry is None else entry.min or 0
        cap = None if entry is None else entry.max
        reasons = [] if entry is None else [_words(entry)]
        for prewarm in self._prewarms:
            replicas = prewarm.prewarm or 0
            if replicas > floor and _is_on(prewarm, signals.unix_s):
                # Asked for by name: a general cap does not take it away.
                floor, cap = replicas, None if cap is None else max(cap, replicas)
                reasons.append(_words(prewarm))
        if not reasons:
            return None
        return Wanted(floor, "; ".join(reasons), "schedule", cap, is_floor=entry is None or entry.min is None)

    def _in_force(self, unix_s: float) -> Entry | None:
        """The last to come round; of two at the same moment the later in the list."""
        found: tuple[float, Entry] | None = None
        for entry in self._bounds:
            began = entry.cron.previous(unix_s)
            if began is not None and (found is None or began >= found[0]):
                found = began, entry
        return found[1] if found is not None and unix_s - found[0] < found[1].for_s else None


def _is_on(entry: Entry, unix_s: float) -> bool:
    began = entry.cron.previous(unix_s)
    return began is not None and unix_s - began < entry.for_s


def _words(entry: Entry) -> str:
    bounds = {"min": entry.min, "max": entry.max, "prewarm": entry.prewarm}
    said = ", ".join(f"{name} {value}" for name, value in bounds.items() if value is not None)
    return f"{said} since {entry.cron.text} ({entry.tz.key})"


def _entry(item: object, number: int) -> Entry:
    try:
        return _read(item)
    except ValueError as error:
        raise ValueError(f"entry {number + 1}: {error}") from None


def _read(item: object) -> Entry:
    if not isinstance(item, Mapping):
        raise ValueError("must be a mapping with cron, tz, and min, max or prewarm")
    for key in item:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}{suggestion(str(key), _KEYS)}")
    text = item.get("cron")
    if not isinstance(text, str):
        raise ValueError("cron is required, such as 0 9 * * 1-5")
    tz = zone(str(item.get("tz", "UTC")))
    least, most, prewarm = (_count(item, key) for key in ("min", "max", "prewarm"))
    if (prewarm is None) == (least is None and most is None):
        raise ValueError("needs min, max or both; or prewarm, alone")
    if least is not None and most is not None and most < least:
        raise ValueError("max is less than min")
    for_s = duration_s(item["for"]) if "for" in item else (_FOR_EVER if prewarm is None else PREWARM_S)
    try:
        cron = Cron(text, tz)
    except ValueError as error:
        raise ValueError(f"cron {text!r}: {error}") from None
    return Entry(cron, tz, least, most, prewarm, for_s)


def _count(item: Mapping[object, object], key: str) -> int | None:
    value = item.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{key}: {value!r} must be a whole number of replicas")
    return value
