"""Admission to one pool: prices requests, lets them go while a backend may be given more, holds or sheds the rest."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Generic, TypeVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Backlogged, Moment, RoutingPolicy
from llmproxy.core.request import Request
from llmproxy.policy.admission.hedge import Hedges
from llmproxy.policy.admission.lanes import NO_LANE, Lanes
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.prices import Prices
from llmproxy.policy.admission.queue import Queue
from llmproxy.policy.admission.saturation.gauge import Saturation
from llmproxy.policy.admission.tenant_share import AUTO, HEAVY_S, TenantShare
from llmproxy.policy.admission.ticket import Band, Reason, Ticket
from llmproxy.policy.admission.wholes import Wholes

W = TypeVar("W")

ASKED_MAX = 8
"""Tickets that are offered the free places each time something changes. Those that may not go everywhere count extra,
so that they never hold up the others."""


def _nothing() -> None:
    return None


class Admission(Generic[W]):
    """A driver tells it of every request's moments (`observe`, where it `watches`), enters those it has no place for,
    and calls `pump` whenever something may have changed."""

    def __init__(self, options: AdmissionOptions, routing: RoutingPolicy) -> None:
        self.queue: Queue[W] = Queue(options.bounds)
        self.saturation = Saturation(options, routing)
        self.lanes = Lanes(options.lanes)
        self.tenants = TenantShare(1.0)
        self.hedges = Hedges(options.hedge)
        self.on_change: Callable[[], None] = _nothing
        """Called when something may have made room; the driver's."""
        self._prices: Prices[W] = Prices(options, routing)
        self._wholes: Wholes[W] = Wholes()
        self._set(options, routing)

    def configure(self, options: AdmissionOptions, routing: RoutingPolicy) -> None:
        """New options, or another routing policy, after a reload."""
        before = self._options
        self.queue.configure(options.bounds)
        self.saturation.configure(options, routing)
        self._prices.configure(options, routing)
        if options.lanes != before.lanes:
            self.lanes = self.lanes.changed(options.lanes)
        if options.hedge != before.hedge:
            self.hedges = Hedges(options.hedge)
        self._set(options, routing)
        if not self.watches:
            # Nobody tells how those end that are under way.
            self.saturation = Saturation(options, routing)
            self.lanes, self.tenants = Lanes(options.lanes), TenantShare(self.tenants.share)
            self._wholes = Wholes()

    def _set(self, options: AdmissionOptions, routing: RoutingPolicy) -> None:
        self._options = options
        self._estimates = routing if isinstance(routing, Backlogged) else None
        self._priced = bool(options.lanes) or options.slo.ttft_s != inf
        # Where nobody knows what waits in the engines they queue as they like, and to hold one tenant back for others
        # is left to whoever asks for it.
        knows = self._estimates is not None and options.backlog_s > 0
        self.tenants.share = options.tenant_share if options.tenant_share != AUTO or knows else 1.0
        self._shares = self.minds_priority = self.tenants.share < 1.0
        self.holds = self.saturation.watches or bool(options.lanes) or self._shares
        """Whether requests may have to wait although no backend is at its `max_concurrency`."""
        self.watches = self.saturation.watches or self._priced or self._shares or bool(options.hedge.share)

    @property
    def waiting(self) -> int:
        return self.queue.waiting

    def ticket(self, request: Request, backends: Sequence[Backend]) -> Ticket[W]:
        """The request's ticket, made and priced when it is first asked for."""
        return self._prices.ticket(request, backends, self.lanes)

    def admit(self, backend: Backend, request: Request, backends: Sequence[Backend], now: float) -> bool:
        """Whether a request that found nobody waiting may go to `backend`, which the routing policy chose for it; then
        it is on its way."""
        if not self.saturation.may_go(backend, now):
            return False
        self._pass_time(now)
        if self.lanes.lanes and not self.lanes.is_open(self.ticket(request, backends).lane, len(backends)):
            return False
        if self._shares:
            self.tenants.seen(request.tenant, request.priority, now)
            if request.tenant in self.tenants.closed(len(backends), now):
                return False
        if self.watches:
            self._start(self._note(request, backend), backend)
        return True

    def enter(self, ticket: Ticket[W], now: float, shed: Callable[[Ticket[W], Reason], None]) -> Reason | None:
        """Stand in line; why not, where that is of no use. Somebody else may be shed for it."""
        if self._shares:
            self.tenants.seen(ticket.tenant, ticket.band, now)
        latest = self._prices.latest_start(ticket)
        if latest != inf:
            eta_s = self.queue.eta_s(ticket, now)
            if now + self._prices.wait_s(ticket, eta_s, latest - now, self.queue.waiting) > latest:
                if ticket.band is not Band.BATCH:
                    return Reason.DEADLINE
                ticket.deadline = latest = inf
        refused = self.queue.enter(ticket, now, latest)
        if refused is Reason.FULL and (other := self.queue.gives_way(ticket)) is not None:
            self.queue.leave(other)
            refused = self.queue.enter(ticket, now, latest)
            shed(other, Reason.FULL)
        return refused

    def leave(self, ticket: Ticket[W]) -> None:
        self.queue.leave(ticket)

    def in_line(self) -> list[Ticket[W]]:
        return self.queue.in_line()

    def longest_wait_s(self, now: float) -> float:
        """How long whoever has waited longest has; 0 when nobody waits."""
        return max((now - ticket.entered for ticket in self.in_line()), default=0.0)

    def retry_after_s(self, now: float) -> int:
        """How long one turned away now had better stay away."""
        return self.queue.retry_after_s(now)

    def pump(
        self,
        backends: Sequence[Backend],
        now: float,
        choose: Callable[[Ticket[W]], Backend | None],
        go: Callable[[Ticket[W], Backend], None],
        shed: Callable[[Ticket[W], Reason], None],
    ) -> None:
        """Let go who can, shed who has waited too long. `backends`: those that may be given work, with room or without.
        `choose` is the routing policy's choice among those that one ticket may use and that have room.

        A ticket goes only where the policy wants it: a backend that is worth waiting for is rarely far from having
        room, and going elsewhere costs everybody a prefix cache. Meanwhile those behind it may pass, but only so many
        are asked."""
        self.expire(now, shed)
        self._pass_time(now)
        passed: set[Ticket[W]] = set()
        asked = 0
        while self.queue.waiting and any(self.saturation.may_go(backend, now) for backend in backends):
            count = len(backends)
            ticket = self.queue.head(self.lanes.closed(count), passed, self.tenants.closed(count, now))
            if ticket is None:
                return
            backend = choose(ticket)
            if backend is not None and self.saturation.may_go(backend, now):
                self._prices.waited(ticket, in_vain=False)
                self.queue.serve(ticket, now)
                if self.watches:
                    self._start(ticket, backend)
                go(ticket, backend)
                continue
            passed.add(ticket)
            asked += not ticket.restricted
            if asked == ASKED_MAX:
                return

    def expire(self, now: float, shed: Callable[[Ticket[W], Reason], None]) -> None:
        """Take those out of line who have waited too long, or cannot make their deadline any more."""
        self._prices.looks_again()
        for ticket in self.queue.ended(now):
            if not ticket.waiting:
                # Gone with one before it.
                continue
            waited_out = now - ticket.entered >= self.queue.bounds.wait_s
            if ticket.band is Band.BATCH and not waited_out:
                self.queue.demote(ticket, now)
                continue
            if not waited_out:
                self._prices.waited(ticket, in_vain=True)
            self.queue.leave(ticket)
            shed(ticket, Reason.WAIT if waited_out else Reason.DEADLINE)

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        """The life of a request that was sent, as the routing policy hears of it."""
        ticket = self._note(request, backend)
        if moment is Moment.SENT:
            self._arrived(ticket)
            self._sent(ticket, backend, request, now)
            return
        if ticket.backend is not backend:
            return
        if ticket.starting:
            self._arrived(ticket)
        elif not ticket.first_at and not ticket.computed:
            self._computed(ticket, now)
            if request.stream:
                self.saturation.computed(backend, now)
            if moment is not Moment.FAILED and request.stream:
                self._first_token(ticket, backend, now)
        if moment is not Moment.FIRST_TOKEN:
            self._over(ticket, moment, request, now)
        self.on_change()

    def forget(self, backend: Backend) -> None:
        """It left the pool."""
        self.saturation.forget(backend)

    def _note(self, request: Request, backend: Backend) -> Ticket[W]:
        """The request's ticket; one that never waited and has no price gets a bare one."""
        known = request.ticket
        if isinstance(known, Ticket):
            return known
        return self.ticket(request, (backend,)) if self._priced else self._prices.bare(request)

    def _start(self, ticket: Ticket[W], backend: Backend) -> None:
        """It is on its way to `backend`; there may have to be a connection first."""
        ticket.backend, ticket.starting = backend, True
        self.saturation.starts(backend)

    def _arrived(self, ticket: Ticket[W]) -> None:
        """It is on its way no more."""
        if ticket.starting and ticket.backend is not None:
            self.saturation.started(ticket.backend)
            ticket.starting = False

    def _sent(self, ticket: Ticket[W], backend: Backend, request: Request, now: float) -> None:
        ticket.backend, ticket.sent_at, ticket.first_at, ticket.computed = backend, now, 0.0, False
        if request.stream:
            self.saturation.began(backend, now)
        self.lanes.began(ticket.lane)
        if self._shares and self._shares_in(backend, request, now):
            ticket.shares = True
            self.tenants.began(ticket.tenant, ticket.band, backend, now)
        self.hedges.sent()
        if not request.stream and (self._shares or ticket.lane != NO_LANE):
            # The routing policy knows of it already: what waits there is this prompt, and those before it.
            wait_s = self.saturation.wait_s(backend, now)
            if wait_s is not None:
                self._wholes.sent(ticket, now + wait_s)

    def _pass_time(self, now: float) -> None:
        for ticket in self._wholes.computed(now):
            self._computed(ticket, now)

    def _shares_in(self, backend: Backend, request: Request, now: float) -> bool:
        """Whether a prompt that was just sent counts as its tenant's."""
        if self.tenants.share != AUTO or self._estimates is None:
            return True
        # When a prompt was computed whose answer comes whole, nobody sees.
        return request.stream and self._estimates.backlog_s(backend, now) >= HEAVY_S

    def _computed(self, ticket: Ticket[W], now: float) -> None:
        """Its prompt is, or it is over."""
        ticket.computed = True
        self.lanes.ended(ticket.lane)
        if ticket.shares and ticket.backend is not None:
            ticket.shares = False
            self.tenants.ended(ticket.tenant, ticket.backend, now)

    def _first_token(self, ticket: Ticket[W], backend: Backend, now: float) -> None:
        ticket.first_at = now
        ttft_s = now - ticket.sent_at
        self._prices.first_token(ticket, now)
        if self.saturation.adaptive is not None:
            self.saturation.adaptive.first_token(backend, ticket.bytes, ttft_s)
        self.hedges.first_token(ttft_s)

    def _over(self, ticket: Ticket[W], moment: Moment, request: Request, now: float) -> None:
        ticket.backend = None
        counts = request.tokens
        if moment is Moment.FAILED and not ticket.first_at:
            self.queue.refund(ticket)
            return
        completion = None if counts is None else counts.completion
        self.queue.settle(ticket, None if counts is None else counts.prompt, completion)
        share = self.saturation.share
        if share is not None and moment is Moment.FINISHED and ticket.first_at and completion and completion > 1:
            share.learn((now - ticket.first_at) / (completion - 1) > self._options.slo.tpot_s)
