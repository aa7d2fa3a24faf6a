"""The wait for room: when every backend of a pool is at its `max_concurrency`, first come, first served."""

import asyncio
from collections.abc import Callable

from llmproxy.core.errors import Overloaded
from llmproxy.core.step import Signal
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.snapshot import ServingPool
from llmproxy.wire.deadlines import NEVER, Deadlines


class Turn:
    """One request's place in the line. `fits` says whether a backend that *it* may use has room: a request that is
    tried again, or that is about an answer made before, cannot go everywhere."""

    __slots__ = ("fits", "signal")

    def __init__(self, fits: Callable[[], bool]) -> None:
        self.fits = fits
        self.signal: Signal[None] = Signal()


class Room:
    """Drives one pool's queue: wakes whoever is first when a place is free, and ends waits that took too long."""

    def __init__(
        self,
        pool: ServingPool,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        deadlines: Deadlines,
    ) -> None:
        self.pool = pool
        self._loop = loop
        self._clock = clock
        self._woken = False
        self.deadline = NEVER
        deadlines.add(self)

    @property
    def crowded(self) -> bool:
        """Whether someone waits already; then newcomers wait behind them."""
        return bool(self.pool.queue.waiting)

    def freed(self) -> None:
        """A lease was given back, or something else has changed."""
        if self.pool.bounded and self.pool.queue.waiting and not self._woken:
            # From the loop: the one that freed the place finishes its own business first.
            self._woken = True
            self._loop.call_soon(self._wake)

    async def wait(self, x: Exchange, fits: Callable[[], bool]) -> None:
        """Wait in line until it is `x`'s turn and it fits. Raises `Overloaded` when the line is full or the wait too
        long."""
        queue = self.pool.queue
        now = self._clock()
        turn = Turn(fits)
        if not queue.enter(turn, now):
            raise Overloaded(
                "every backend is busy and the queue is full", code="queue_full", retry_after_s=queue.retry_after_s(now)
            )
        self.deadline = 0.0
        # Those in front may wait for a backend that this one does not need.
        self.freed()
        x.waiting = turn.signal
        try:
            await turn.signal
        finally:
            x.waiting = None
            queue.leave(turn)

    def expired(self, now: float) -> None:
        """Each sweep while someone waits: health may have changed, and waits run out."""
        queue = self.pool.queue
        for turn in queue.expired(now):
            turn.signal.fail(
                Overloaded(
                    "every backend is busy; the wait took too long",
                    code="queue_timeout",
                    retry_after_s=queue.retry_after_s(now),
                )
            )
        self._wake()
        if not queue.waiting:
            self.deadline = NEVER

    def _wake(self) -> None:
        self._woken = False
        queue = self.pool.queue
        if not self._has_room():
            return
        # One pass: whoever is let out and cannot go anywhere after all stands in line again behind this pass.
        for turn in queue.in_line():
            if not self._has_room():
                return
            if turn.fits() and queue.serve(turn):
                turn.signal.set(None)

    def _has_room(self) -> bool:
        candidates = self.pool.health.candidates(self._clock())
        # With nobody eligible everybody in line is let out, to be told so.
        return not candidates or any(backend.has_room for backend in candidates)
