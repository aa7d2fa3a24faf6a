"""Runs an engine in real time: one timer for the whole batch, re-armed for each step."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from llmproxy.sim import Engine, Sequence

S = TypeVar("S", bound=Sequence)

_CATCH_UP_S = 0.25
"""A step that is less late begins the next one at its due time, so that lateness does not add up to a slower pace."""
_EARLY_S = 0.001
"""uvloop rounds timers to milliseconds, and may call that much too early."""


class Driver(Generic[S]):
    """`deliver(sequence, now)` is called for every sequence that got a token, in order."""

    def __init__(self, engine: Engine[S], deliver: Callable[[S, float], None]) -> None:
        self.engine = engine
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._stopped = False

    def submit(self, sequence: S) -> None:
        """Raises ValueError when the engine could never run it."""
        self.engine.submit(sequence, self._loop.time())
        self._arm()

    def abort(self, sequence: S) -> bool:
        found = self.engine.abort(sequence, self._loop.time())
        self._arm()
        return found

    def pause(self) -> None:
        self.engine.pause()
        self._arm()

    def resume(self) -> None:
        self.engine.resume(self._loop.time())
        self._arm()

    def stop(self) -> None:
        self._stopped = True
        self._arm()

    def _arm(self) -> None:
        due = None if self._stopped else self.engine.due
        timer = self._timer
        if timer is not None:
            if due is not None and self._timer_at <= due:
                return
            timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(due, self._step)
            self._timer_at = due

    def _step(self) -> None:
        self._timer = None
        due, now = self.engine.due, self._loop.time()
        if due is not None and now >= due - _EARLY_S:
            for sequence in self.engine.advance(due if now - due < _CATCH_UP_S else now):
                self._deliver(sequence, now)
        self._arm()
