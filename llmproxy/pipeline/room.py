"""The wait for a place: drives a pool's admission, which decides who waits, who goes next and who is shed."""

import asyncio
from collections.abc import Callable
from typing import Final

from llmproxy.core.backend import Backend
from llmproxy.core.errors import Overloaded, ProxyError, Unavailable
from llmproxy.core.step import Signal
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.snapshot import ServingPool
from llmproxy.policy.admission.admission import Admission
from llmproxy.policy.admission.ticket import Band, Reason, Ticket
from llmproxy.wire.deadlines import NEVER, Deadlines

_MESSAGES: Final = {
    Reason.FULL: "every backend is busy and the queue is full",
    Reason.BYTES: "every backend is busy and the queue holds as many bytes as it may",
    Reason.TENANT: "every backend is busy and too many of your requests wait already",
    Reason.WAIT: "every backend is busy; the wait took too long",
    Reason.DEADLINE: "every backend is busy; the answer would come too late",
}
_BANDS: Final = {band.name.lower(): band for band in Band}


class Turn:
    """One request's place in the queue. `choose` gives the backend it would go to now, None when those it may use are
    all full, and raises `Unavailable` when there are none."""

    __slots__ = ("choose", "signal")

    def __init__(self, choose: Callable[[], Backend | None]) -> None:
        self.choose = choose
        self.signal: Signal[Backend] = Signal()


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
        self._queue: Admission[Turn] = pool.queue
        self._queue.on_change = self.freed
        self._deadlines = deadlines
        deadlines.add(self)

    def close(self) -> None:
        """The pool is gone: whoever waits for it waits for nothing."""
        self._deadlines.discard(self)
        for ticket in self._queue.in_line():
            _end(ticket, Unavailable("the pool that this request waited for is gone", retry_after_s=5))

    @property
    def crowded(self) -> bool:
        """Whether someone waits already; then newcomers wait behind them."""
        return self._queue.waiting > 0

    def freed(self) -> None:
        """A lease was given back, or something else has changed."""
        if (self.pool.bounded or self.pool.elastic) and self._queue.waiting and not self._woken:
            # From the loop: the one that freed the place finishes its own business first.
            self._woken = True
            self._loop.call_soon(self._wake)

    async def wait(self, x: Exchange, choose: Callable[[], Backend | None], *, restricted: bool) -> Backend:
        """Wait in line until it is `x`'s turn; the backend it is to go to. `restricted`: it may not go to all of them.
        Raises `Overloaded` when it is shed."""
        queue, now = self._queue, self._clock()
        assert x.view is not None
        x.view.priority = priority(x)
        turn = Turn(choose)
        ticket = queue.ticket(x.view, self.pool.backends)
        if not ticket.charged:
            # It may have been made before anybody asked for its priority.
            ticket.band = Band(x.view.priority)
        ticket.owner, ticket.restricted = turn, restricted
        try:
            refused = queue.enter(ticket, now, self._fail)
            if refused is not None:
                raise self._shed(refused, now)
            self.deadline = 0.0
            # Those in front may wait for a backend that this one does not need.
            self.freed()
            x.waiting = turn.signal
            return await turn.signal
        finally:
            x.waiting = None
            ticket.owner = None
            queue.leave(ticket)

    def expired(self, now: float) -> None:
        """Each sweep while someone waits: health may have changed, and waits run out."""
        self._wake()
        if not self._queue.waiting:
            self.deadline = NEVER

    def _wake(self) -> None:
        self._woken = False
        now = self._clock()
        candidates = self.pool.health.candidates(now)
        if candidates or self.pool.elastic:
            self._queue.pump(candidates, now, _choose, _go, self._fail)
            return
        for ticket in self._queue.in_line():
            _end(ticket, Unavailable("no backend is available for this request", retry_after_s=5))

    def _fail(self, ticket: Ticket[Turn], reason: Reason) -> None:
        _end(ticket, self._shed(reason, self._clock()))

    def _shed(self, reason: Reason, now: float) -> Overloaded:
        return Overloaded(_MESSAGES[reason], code=reason.value, retry_after_s=self._queue.retry_after_s(now))


def priority(x: Exchange) -> int:
    """What its key, or its tier, says; a client may ask for less with `X-LLMProxy-Priority`."""
    identity = x.identity
    found = Band.NORMAL
    if identity is not None:
        word = identity.priority or x.snapshot.priorities.get(identity.tier) or ""
        found = _BANDS.get(word, Band.NORMAL)
    asked = x.view.header("x-llmproxy-priority") if x.view is not None else None
    return found if asked is None else max(found, _BANDS.get(asked.lower(), found))


def _choose(ticket: Ticket[Turn]) -> Backend | None:
    turn = ticket.owner
    if turn is None or turn.signal.done:
        return None
    try:
        return turn.choose()
    except ProxyError as error:
        _end(ticket, error)
        return None


def _go(ticket: Ticket[Turn], backend: Backend) -> None:
    assert ticket.owner is not None
    ticket.owner.signal.set(backend)


def _end(ticket: Ticket[Turn], error: ProxyError) -> None:
    if ticket.owner is not None:
        ticket.owner.signal.fail(error)
