"""What a request is expected to take, and until when it is worth waiting; learned from how those before it went."""

from collections.abc import Sequence
from math import inf
from typing import Generic, TypeVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Backlogged, Estimate, RoutingPolicy
from llmproxy.core.prompt import TOKENS_PER_BYTE
from llmproxy.core.request import Request
from llmproxy.policy.admission.deadline import Margin, parse_timeout
from llmproxy.policy.admission.foresight import FirstTokens, Patience
from llmproxy.policy.admission.lanes import NO_LANE, Lanes
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.ticket import Band, Ticket

W = TypeVar("W")


class Prices(Generic[W]):
    """Of one pool. What has been learned survives `configure`."""

    def __init__(self, options: AdmissionOptions, routing: RoutingPolicy) -> None:
        self._margin = Margin(options.ttft_missing)
        self._patience = Patience(options.wait_missing)
        self._firsts = FirstTokens()
        self._backends = 1
        """How many there were when they were last seen."""
        self.configure(options, routing)

    def configure(self, options: AdmissionOptions, routing: RoutingPolicy) -> None:
        """New options, or another routing policy."""
        self._slo = options.slo
        self._estimates = routing if isinstance(routing, Backlogged) else None

    def ticket(self, request: Request, backends: Sequence[Backend], lanes: Lanes) -> Ticket[W]:
        """The request's ticket, made and priced when it is first asked for."""
        known = request.ticket
        self._backends = len(backends)
        if isinstance(known, Ticket):
            return known
        # Unless the routing policy has an estimate.
        tokens = request.body_bytes * TOKENS_PER_BYTE
        estimate = Estimate(tokens, self._firsts.expected_s(request.body_bytes), 0.0)
        if self._estimates is not None and backends:
            estimate = self._estimates.estimate(backends, request)
        timeout_s = parse_timeout(request.header("x-request-timeout"))
        ticket: Ticket[W] = Ticket(
            tenant=request.tenant,
            band=Band(request.priority),
            weight=request.share,
            tokens=estimate.tokens,
            bytes=request.body_bytes,
            deadline=self._slo.deadline(request.arrived, estimate.cold_s, timeout_s),
            prefill_s=estimate.prefill_s,
            lane=lanes.of(estimate.tokens, request.body_bytes) if lanes.lanes else NO_LANE,
        )
        request.ticket = ticket
        return ticket

    def bare(self, request: Request) -> Ticket[W]:
        """Enough for who is not held to a deadline; it may yet have to wait, when its first attempt fails."""
        ticket: Ticket[W] = Ticket(
            tenant=request.tenant,
            band=Band(request.priority),
            weight=request.share,
            tokens=request.body_bytes * TOKENS_PER_BYTE,
            bytes=request.body_bytes,
        )
        request.ticket = ticket
        return ticket

    def latest_start(self, ticket: Ticket[W]) -> float:
        """Until when it makes sense to let it go; infinite where nothing is due."""
        return inf if ticket.deadline == inf else self._margin.latest_start(ticket.deadline, ticket.prefill_s)

    def wait_s(self, ticket: Ticket[W], eta_s: float | None, worth_s: float, waiting: int) -> float:
        """How long it had better expect to wait, when the pace says `eta_s`, so many wait, and to wait longer than
        `worth_s` makes no sense."""
        factor = self._patience.factor(ticket.band, worth_s)
        # Of a queue shorter than the fleet too much depends on who it is: without a choice of requests that fit their
        # caches, backends would stand idle.
        return (eta_s or 0.0) * (factor if waiting >= self._backends else min(factor, 1.0))

    # -- how it went -----------------------------------------------------------------------------------------------

    def looks_again(self) -> None:
        """From now on deadlines that pass are another event."""
        self._patience.looks_again()

    def waited(self, ticket: Ticket[W], *, in_vain: bool) -> None:
        """Its wait is over, and what was expected of it can be judged."""
        if ticket.deadline != inf:
            self._patience.learn(ticket.band, ticket.ends_at - ticket.entered, in_vain)

    def first_token(self, ticket: Ticket[W], now: float) -> None:
        """It was answered by a first token."""
        if self._estimates is None:
            self._firsts.learn(ticket.bytes, now - ticket.sent_at)
        if ticket.deadline != inf:
            self._margin.learn(ticket.prefill_s, now > ticket.deadline)
