"""The queue: bounded, in bands, fair between tenants, by deadline within one."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from llmproxy.policy.admission.bands import Bands
from llmproxy.policy.admission.drain import DrainRate
from llmproxy.policy.admission.fairness import Fairness
from llmproxy.policy.admission.sorted_tickets import SortedTickets
from llmproxy.policy.admission.tenant import Tenant
from llmproxy.policy.admission.ticket import Band, Reason, Ticket

W = TypeVar("W")

_NOTHING_CLOSED: frozenset[int] = frozenset()
_NO_TENANT: frozenset[str] = frozenset()
_MANY_TENANTS = 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may wait at once. Of a reload, new bounds send nobody away."""

    waiting_max: int = 1000
    wait_s: float = 30.0
    bytes_max: int = 1 << 30
    tenant_waiting_max: int = 1000
    tenant_bytes_max: int = 1 << 30
    min_share: float = 0.05
    """Of the service of better bands, for each worse one in which someone waits."""


class Queue(Generic[W]):
    """Holds tickets and wakes nobody. Leaving is idempotent, so a waiter can leave on every path out."""

    def __init__(self, bounds: Bounds) -> None:
        self._bands: list[Fairness[W]] = [Fairness() for _ in Band]
        self._shares = Bands(len(Band), bounds.min_share)
        self._ends: SortedTickets[W] = SortedTickets()
        self._sequence = 0
        self.bytes = 0
        self.drain = DrainRate()
        self.configure(bounds)

    def configure(self, bounds: Bounds) -> None:
        """New bounds after a reload. Those who wait keep the wait they came with."""
        self.bounds = bounds
        self._shares.configure(bounds.min_share)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._ends)

    def enter(self, ticket: Ticket[W], now: float, latest_start: float = inf) -> Reason | None:
        """Stand in line; why not, when it may not. One who is in it already keeps its place. `latest_start`: when
        waiting any longer makes no sense."""
        if ticket.waiting:
            return None
        bounds = self.bounds
        refused = self._refusal(ticket)
        if refused is not None:
            return refused
        self._sequence += 1
        ticket.sequence = self._sequence
        ticket.entered = now
        ticket.ends_at = min(now + bounds.wait_s, latest_start)
        ticket.waiting = True
        self._bands[ticket.band].add(ticket)
        self._ends.add(ticket.ends_at, ticket)
        self.bytes += ticket.bytes
        return None

    def gives_way(self, ticket: Ticket[W]) -> Ticket[W] | None:
        """Who had better leave a full line for `ticket`: the last of whoever has the longest line in the worst
        priority, so that no flood keeps others out. Nobody does for a worse priority, nor for one whose own line would
        then be as long; and the least share of the places is kept for each worse priority that has them."""
        kept = self.bounds.min_share * self.bounds.waiting_max
        for band in reversed(Band):
            if band < ticket.band:
                return None
            fairness = self._bands[band]
            if band > ticket.band and self.waiting_in(band) <= kept:
                continue
            if self.waiting_in(band) == len(fairness) and band == ticket.band:
                # A line of one for each: whoever came first stays.
                continue
            longest = max(fairness.waiting(), key=lambda tenant: tenant.waiting, default=None)
            if longest is None:
                continue
            own = fairness.get(ticket.tenant) if band == ticket.band else None
            least = 0 if band > ticket.band else 1 if own is None else own.waiting + 1
            return longest.last() if longest.waiting > least else None
        return None

    def leave(self, ticket: Ticket[W]) -> None:
        """Step out of line, from wherever it stands; nothing happens when it is not in it."""
        if not ticket.waiting:
            return
        self._bands[ticket.band].remove(ticket)
        self._gone(ticket)

    def demote(self, ticket: Ticket[W], now: float) -> None:
        """Its deadline counts no more: it goes behind those of its tenant who have one."""
        if ticket.waiting:
            band = self._bands[ticket.band]
            self._ends.remove(ticket.ends_at, ticket)
            # Not by remove and add: its tenant, perhaps alone here, goes on waiting.
            tenant = band.get(ticket.tenant)
            assert tenant is not None
            tenant.remove(ticket)
            ticket.deadline = inf
            ticket.ends_at = max(ticket.entered + self.bounds.wait_s, now)
            tenant.add(ticket)
            self._ends.add(ticket.ends_at, ticket)

    def head(
        self,
        closed: frozenset[int] = _NOTHING_CLOSED,
        passed_over: set[Ticket[W]] | None = None,
        closed_tenants: frozenset[str] = _NO_TENANT,
    ) -> Ticket[W] | None:
        """Who goes next, but for lanes and tenants that are `closed` and those `passed_over`."""
        passed = passed_over if passed_over is not None else set()
        heads: dict[int, Ticket[W]] = {}
        for band, fairness in enumerate(self._bands):
            if len(fairness):
                for tenant in fairness.waiting():
                    ticket = None if tenant.name in closed_tenants else tenant.first(closed, passed)
                    if ticket is not None:
                        heads[band] = ticket
                        break
        if len(heads) < 2:
            return next(iter(heads.values()), None)
        order = self._shares.order(
            [band in heads for band in range(len(self._bands))], lambda band: self._bands[band].cost(heads[band])
        )
        return heads[order[0]]

    def serve(self, ticket: Ticket[W], now: float) -> bool:
        """Take it out of line, to be served; False when it is not in it."""
        if not ticket.waiting:
            return False
        cost = self._bands[ticket.band].serve(ticket)
        self._shares.served(ticket.band, cost, [bool(len(band)) for band in self._bands])
        self._gone(ticket)
        self.drain.served(now)
        return True

    def settle(self, ticket: Ticket[W], prompt: float | None, completion: float | None) -> None:
        """One that was served is over: its tenant is charged what it used, not what was expected."""
        if ticket.charged:
            self._bands[ticket.band].settle(ticket, prompt, completion)
            ticket.charged = 0.0

    def refund(self, ticket: Ticket[W]) -> None:
        """One that was served came to nothing."""
        if ticket.charged:
            self._bands[ticket.band].refund(ticket)
            ticket.charged = 0.0

    def ended(self, now: float) -> list[Ticket[W]]:
        """Those whose wait is over; they are still in line."""
        return self._ends.until(now)

    def in_line(self) -> list[Ticket[W]]:
        """Everybody who waits: by band, within it by tenant (the least served first)."""
        return [ticket for tenant in self.tenants() for lane in tenant.lanes.values() for ticket in lane.in_order()]

    def tenants(self) -> Iterator[Tenant[W]]:
        for band in self._bands:
            yield from band.waiting()

    def waiting_in(self, band: Band) -> int:
        return sum(tenant.waiting for tenant in self._bands[band].waiting())

    @property
    def remembered(self) -> int:
        """Tenants whose counters are kept."""
        return sum(band.remembered for band in self._bands)

    def position(self, ticket: Ticket[W]) -> int:
        """How many are likely to go before it, whether it is in line or not: those of better bands; of its own, each
        tenant as many as it has before it itself, as they take turns."""
        ahead = sum(self.waiting_in(band) for band in Band if band < ticket.band)
        band = self._bands[ticket.band]
        own = band.get(ticket.tenant)
        sequence = ticket.sequence if ticket.waiting else self._sequence + 1
        before = own.before(ticket.deadline, sequence) if own is not None else 0
        if len(band) > _MANY_TENANTS:
            return ahead + before + (before + 1) * (len(band) - 1)
        for tenant in band.waiting():
            ahead += before if tenant is own else min(tenant.waiting, before + 1)
        return ahead

    def eta_s(self, ticket: Ticket[W], now: float) -> float | None:
        """How long it is likely to wait from now on; None: unknown."""
        return self.drain.eta_s(self.position(ticket), now)

    def retry_after_s(self, now: float) -> int:
        return self.drain.retry_after_s(self.waiting, self.bounds.wait_s, now)

    def _refusal(self, ticket: Ticket[W]) -> Reason | None:
        bounds = self.bounds
        if self.waiting and self.bytes + ticket.bytes > bounds.bytes_max:
            return Reason.BYTES
        tenant = self._bands[ticket.band].get(ticket.tenant)
        waiting, size = (tenant.waiting, tenant.waiting_bytes) if tenant is not None else (0, 0)
        if waiting >= bounds.tenant_waiting_max or (waiting and size + ticket.bytes > bounds.tenant_bytes_max):
            return Reason.TENANT
        # The last question: who is refused for nothing else may take somebody's place.
        return Reason.FULL if self.waiting >= bounds.waiting_max else None

    def _gone(self, ticket: Ticket[W]) -> None:
        ticket.waiting = False
        self.bytes -= ticket.bytes
        self._ends.remove(ticket.ends_at, ticket)
        if not len(self._bands[ticket.band]):
            self._shares.emptied(ticket.band)
