"""Coarse timeouts: one sweep over all connections instead of a timer for each request.

Arming a timeout is an attribute assignment. The sweep looks at every connection each `interval_s`, so a timeout
fires up to that much late, never early.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

NEVER = float("inf")


class Timed(Protocol):
    """Something with a `deadline` (monotonic seconds, or NEVER) that wants to hear when it has passed."""

    deadline: float

    def expired(self, now: float) -> None: ...


class Deadlines:
    """The set of timed things of one loop. `add` and `discard` are the set's own methods.

    `on_tick_lag` is told, at each sweep, by how many seconds it came late: what a busy or blocked loop costs everyone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        interval_s: float = 0.1,
        *,
        on_tick_lag: Callable[[float], None] | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._interval_s = interval_s
        self._on_tick_lag = on_tick_lag
        self._due = NEVER
        self._items: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.add = self._items.add
        self.discard = self._items.discard

    def __len__(self) -> int:
        return len(self._items)

    def start(self) -> None:
        """Begin sweeping."""
        self._arm()

    def stop(self) -> None:
        """Stop sweeping; nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self, now: float) -> None:
        """Tell everything whose deadline has passed."""
        late = [item for item in self._items if item.deadline <= now]
        for item in late:
            # An earlier one may have ended or re-armed this one meanwhile.
            if item.deadline <= now and item in self._items:
                try:
                    item.expired(now)
                except Exception as error:
                    # A fault of ours in one must not take the others' time away, now or at each sweep from now on.
                    self._items.discard(item)
                    self._loop.call_exception_handler({"message": f"{item!r} failed to expire", "exception": error})

    def _arm(self) -> None:
        self._due = self._clock() + self._interval_s
        self._timer = self._loop.call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        try:
            now = self._clock()
            if self._on_tick_lag is not None:
                # uvloop counts whole milliseconds, so it may be a little early.
                self._on_tick_lag(max(now - self._due, 0.0))
            self.sweep(now)
        finally:
            self._arm()
