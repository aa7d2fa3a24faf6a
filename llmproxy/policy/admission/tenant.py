"""One tenant's line in a band: who waits, and how much service it has had."""

from math import inf
from typing import Generic, TypeVar

from llmproxy.policy.admission.sorted_tickets import SortedTickets
from llmproxy.policy.admission.ticket import Ticket

W = TypeVar("W")


class Tenant(Generic[W]):
    """Inside it the nearest deadline goes first, then who came first; each lane keeps its own order, so that a lane
    that is at its share holds up nobody but itself.

    `service` is its virtual token counter, `open` its requests whose usage is not known yet, `output` the tokens its
    answers had lately in the mean.
    """

    __slots__ = ("lanes", "name", "open", "output", "service", "waiting", "waiting_bytes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.service = 0.0
        self.open = 0
        self.output: float | None = None
        self.waiting = 0
        self.waiting_bytes = 0
        self.lanes: dict[int, SortedTickets[W]] = {}

    def add(self, ticket: Ticket[W]) -> None:
        lane = self.lanes.get(ticket.lane)
        if lane is None:
            lane = self.lanes[ticket.lane] = SortedTickets()
        lane.add(ticket.deadline, ticket)
        self.waiting += 1
        self.waiting_bytes += ticket.bytes

    def remove(self, ticket: Ticket[W]) -> None:
        lane = self.lanes[ticket.lane]
        lane.remove(ticket.deadline, ticket)
        if not lane:
            del self.lanes[ticket.lane]
        self.waiting -= 1
        self.waiting_bytes -= ticket.bytes

    def first(self, closed: frozenset[int], passed_over: set[Ticket[W]]) -> Ticket[W] | None:
        """Who goes next, but for the lanes that are `closed` and those `passed_over`."""
        best: Ticket[W] | None = None
        for number, lane in self.lanes.items():
            if number in closed:
                continue
            ticket = lane.first()
            if passed_over and ticket in passed_over:
                ticket = next((one for one in lane.in_order() if one not in passed_over), None)
            if ticket is not None and (best is None or _order(ticket) < _order(best)):
                best = ticket
        return best

    def last(self) -> Ticket[W]:
        """Who of its line would go last; there must be one."""
        return max((lane.last() for lane in self.lanes.values()), key=_order)

    def before(self, deadline: float = inf, sequence: int = 0) -> int:
        """How many of its own stand before one with this deadline."""
        return sum(lane.before(deadline, sequence) for lane in self.lanes.values())


def _order(ticket: Ticket[W]) -> tuple[float, int]:
    return ticket.deadline, ticket.sequence
