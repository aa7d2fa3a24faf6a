"""Floors that somebody asked for, for a while: "launch in ten minutes"."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from llmproxy.core.clock import Clock
from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.options import NoOptions

KEPT_MAX: Final = 100
LONGEST_S: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Event:
    """`begins` and `ends` are monotonic seconds."""

    replicas: int
    begins: float
    ends: float
    who: str
    why: str


class Events:
    """One pool's: a policy that operators speak through."""

    options_type: ClassVar[type] = NoOptions

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        self._tidy()
        if len(self._events) >= KEPT_MAX:
            raise ValueError(f"there are {KEPT_MAX} events already")
        self._events.append(event)

    def clear(self) -> int:
        """Take all floors away; how many there were."""
        count, self._events = len(self._events), []
        return count

    def want(self, signals: Signals, now: float) -> Wanted | None:
        """The highest floor of now: an opinion beside the policies'."""
        on = [event for event in self._events if event.begins <= now < event.ends]
        if not on:
            return None
        event = max(on, key=lambda one: one.replicas)
        return Wanted(event.replicas, f"{event.who}: {event.why}", "event")

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
            for one in self._events
        ]

    def _tidy(self) -> None:
        now = self._clock()
        self._events = [event for event in self._events if event.ends > now]


class Activation:
    """Requests wait and there is nobody: one replica, whatever the policies know by then."""

    options_type: ClassVar[type] = NoOptions

    def want(self, signals: Signals, now: float) -> Wanted | None:
        if signals.queue_depth and not signals.ready:
            return Wanted(1, f"{signals.queue_depth} requests wait, and no replica serves", "activation")
        return None
