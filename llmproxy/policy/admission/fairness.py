"""Fairness inside a band: the tenant that has had the least service goes next.

Virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): each tenant has a counter
of the service it received, weighted tokens of input and output divided by its weight; the least of those who wait is
served. A tenant that begins to wait is lifted to the least counter of those who wait already, or, where nobody does,
to that of the last who stopped: idle time is no credit. Output is charged as expected (the tenant's own mean) when a
request is served and settled when its usage is known, so many requests served at once cannot go uncounted.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from llmproxy.policy.admission.tenant import Tenant
from llmproxy.policy.admission.ticket import Ticket

W = TypeVar("W")

INPUT_WEIGHT: Final = 1.0
OUTPUT_WEIGHT: Final = 2.0
"""As in the paper: a generated token costs about what two of a prompt do."""
_IDLE_MAX: Final = 1024
_OUTPUT_FIRST_GUESS: Final = 200.0
_OUTPUT_LEARNING: Final = 0.1


class Fairness(Generic[W]):
    """The tenants of one band."""

    __slots__ = ("_idle_max", "_last", "_order", "_output", "_tenants")

    def __init__(self, idle_max: int = _IDLE_MAX) -> None:
        self._tenants: dict[str, Tenant[W]] = {}
        self._order: list[tuple[float, str]] = []
        """(service, name) of those who wait."""
        self._last = 0.0
        """Service of the last one who stopped waiting."""
        self._output = _OUTPUT_FIRST_GUESS
        self._idle_max = idle_max

    def __len__(self) -> int:
        return len(self._order)

    @property
    def remembered(self) -> int:
        """Tenants that are known, waiting or not."""
        return len(self._tenants)

    def get(self, name: str) -> Tenant[W] | None:
        return self._tenants.get(name)

    def add(self, ticket: Ticket[W]) -> None:
        """It begins to wait."""
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            tenant = self._tenants[ticket.tenant] = Tenant(ticket.tenant)
        if not tenant.waiting:
            tenant.service = max(tenant.service, self._floor())
            insort(self._order, (tenant.service, tenant.name))
        tenant.add(ticket)
        self._forget_idle()

    def remove(self, ticket: Ticket[W]) -> None:
        """It stops waiting."""
        tenant = self._tenants[ticket.tenant]
        tenant.remove(ticket)
        if not tenant.waiting:
            del self._order[bisect_left(self._order, (tenant.service, tenant.name))]
            self._last = tenant.service
            self._release(tenant)

    def waiting(self) -> Iterator[Tenant[W]]:
        """Those who wait, the least served first. Stop before anything changes."""
        for _, name in self._order:
            yield self._tenants[name]

    def cost(self, ticket: Ticket[W]) -> float:
        """Weighted tokens it is expected to take."""
        tenant = self._tenants.get(ticket.tenant)
        output = self._output if tenant is None or tenant.output is None else tenant.output
        return INPUT_WEIGHT * ticket.tokens + OUTPUT_WEIGHT * output

    def serve(self, ticket: Ticket[W]) -> float:
        """Take it out and charge its tenant; what it was charged."""
        tenant = self._tenants[ticket.tenant]
        ticket.charged = self.cost(ticket)
        tenant.open += 1
        # Out first, at the service it stood with: that is what a newcomer is lifted to.
        self.remove(ticket)
        self._charge(tenant, ticket.charged / ticket.weight)
        return ticket.charged

    def settle(self, ticket: Ticket[W], prompt: float | None, completion: float | None) -> None:
        """A served request is over, with so many tokens (None: nobody knows, as charged)."""
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None or not tenant.open:
            return
        tenant.open -= 1
        if completion is not None:
            known = tenant.output if tenant.output is not None else self._output
            tenant.output = known + _OUTPUT_LEARNING * (completion - known)
            self._output += _OUTPUT_LEARNING * (completion - self._output)
            true = INPUT_WEIGHT * (ticket.tokens if prompt is None else prompt) + OUTPUT_WEIGHT * completion
            self._charge(tenant, (true - ticket.charged) / ticket.weight)
        self._release(tenant)

    def refund(self, ticket: Ticket[W]) -> None:
        """A served request came to nothing: its tenant is not charged."""
        tenant = self._tenants.get(ticket.tenant)
        if tenant is not None and tenant.open:
            tenant.open -= 1
            self._charge(tenant, -ticket.charged / ticket.weight)
            self._release(tenant)

    def _charge(self, tenant: Tenant[W], service: float) -> None:
        if tenant.waiting:
            del self._order[bisect_left(self._order, (tenant.service, tenant.name))]
            tenant.service += service
            insort(self._order, (tenant.service, tenant.name))
        else:
            tenant.service += service

    def _floor(self) -> float:
        return self._order[0][0] if self._order else self._last

    def _release(self, tenant: Tenant[W]) -> None:
        """Forget it where nothing would be lost: it would be lifted this high anyway."""
        if not tenant.waiting and not tenant.open and tenant.service <= self._floor():
            del self._tenants[tenant.name]

    def _forget_idle(self) -> None:
        """Tenants come and go; their number here does not grow with that."""
        if len(self._tenants) - len(self._order) <= self._idle_max:
            return
        idle = [tenant for tenant in self._tenants.values() if not tenant.waiting and not tenant.open]
        idle.sort(key=lambda tenant: tenant.service)
        for tenant in idle[: len(idle) - self._idle_max // 2]:
            del self._tenants[tenant.name]
