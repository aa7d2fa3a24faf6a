"""Floors that somebody asked for, for a while: "launch in ten minutes"."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from llmproxy.control.scaling.tables import LocalTable, Table
from llmproxy.core.clock import Clock
from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.options import NoOptions

KEPT_MAX: Final = 100
LONGEST_S: Final = 7 * 24 * 3600.0
REPLICAS_BELOW: Final = 10**6


@dataclass(frozen=True, slots=True)
class Event:
    """`begins` and `ends` are monotonic seconds."""

    replicas: int
    begins: float
    ends: float
    who: str
    why: str


class Events:
    """One pool's: a policy that operators speak through. In `table`, which proxies may share, times are those of the
    wall clock."""

    options_type: ClassVar[type] = NoOptions

    def __init__(self, clock: Clock, *, wall: Callable[[], float] | None = None, table: Table | None = None) -> None:
        self._clock = clock
        self._wall = wall or clock
        self._table: Table = table or LocalTable()
        self._known: dict[str, tuple[str, Event | None]] = {}
        """By id: the text in the table, and what it says."""

    def add(self, event: Event, id: str | None = None) -> None:
        """With an `id`, in the place of the one that has it. Ask for `room` before."""
        ahead_s = self._wall() - self._clock()
        row = [event.replicas, event.begins + ahead_s, event.ends + ahead_s, event.who, event.why]
        self._table.put(id or secrets.token_hex(8), json.dumps(row))

    def room(self, id: str | None = None) -> None:
        """ValueError when one more cannot be kept."""
        self._tidy()
        if len(self._table.values) >= KEPT_MAX and id not in self._table.values:
            raise ValueError(f"there are {KEPT_MAX} events already")

    def __contains__(self, id: str) -> bool:
        return id in self._table.values

    def drop(self, id: str) -> None:
        """Take one floor away."""
        self._table.put(id, None)

    def clear(self) -> int:
        """Take all floors away; how many there were."""
        ids = list(self._table.values)
        for id in ids:
            self._table.put(id, None)
        return len(ids)

    def want(self, signals: Signals, now: float) -> Wanted | None:
        """The highest floor of now: an opinion beside the policies'."""
        on = [event for event in self._events() if event.begins <= now < event.ends]
        if not on:
            return None
        event = max(on, key=lambda one: one.replicas)
        return Wanted(event.replicas, f"{event.who}: {event.why}", "event", is_floor=True)

    def shown(self) -> list[dict[str, Any]]:
        self._tidy()
        now = self._clock()
        return [
            {
                "replicas": one.replicas,
                "begins_in_s": round(max(one.begins - now, 0.0), 1),
                "ends_in_s": round(one.ends - now, 1),
                "who": one.who,
                "why": one.why,
            }
            for one in self._events()
        ]

    def _events(self) -> list[Event]:
        values = self._table.values
        ahead_s = self._wall() - self._clock()
        known: dict[str, tuple[str, Event | None]] = {}
        for id, text in values.items():
            before = self._known.get(id)
            known[id] = before if before is not None and before[0] == text else (text, _event(text, ahead_s))
        self._known = known
        return [event for _, event in self._known.values() if event is not None]

    def _tidy(self) -> None:
        now = self._clock()
        self._events()
        for id, (_, event) in self._known.items():
            if event is None or event.ends <= now:
                self._table.put(id, None)


def _event(text: str, ahead_s: float) -> Event | None:
    """None for what somebody else wrote there."""
    try:
        replicas, begins, ends, who, why = json.loads(text)
        return Event(int(replicas), float(begins) - ahead_s, float(ends) - ahead_s, str(who), str(why))
    except (ValueError, TypeError):
        return None


class Activation:
    """Requests wait and there is nobody: one replica, whatever the policies know by then."""

    options_type: ClassVar[type] = NoOptions

    def want(self, signals: Signals, now: float) -> Wanted | None:
        if signals.queue_depth and not signals.ready:
            waiting = f"{signals.queue_depth} requests wait, and no replica serves"
            return Wanted(1, waiting, "activation", is_floor=True)
        return None
