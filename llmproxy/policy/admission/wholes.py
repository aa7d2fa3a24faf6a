"""When the prompts of answers that come whole are thought to be computed: lanes and tenants' shares count prompts, and
of these nobody sees the end."""

from heapq import heappop, heappush
from typing import Generic, TypeVar

from llmproxy.policy.admission.ticket import Ticket

W = TypeVar("W")


class Wholes(Generic[W]):
    """Those that were sent, by the moment at which their prompt should be computed. It is looked at when a decision is
    made; there is no timer."""

    __slots__ = ("_sent", "_thought")

    def __init__(self) -> None:
        self._thought: list[tuple[float, int, Ticket[W], float]] = []
        self._sent = 0

    def sent(self, ticket: Ticket[W], computed_at: float) -> None:
        """It was sent just now (at its `sent_at`)."""
        self._sent += 1
        heappush(self._thought, (computed_at, self._sent, ticket, ticket.sent_at))

    def computed(self, now: float) -> list[Ticket[W]]:
        """Those whose moment has come, each once; not those that are over, or were sent again since."""
        found: list[Ticket[W]] = []
        while self._thought and self._thought[0][0] <= now:
            _, _, ticket, sent_at = heappop(self._thought)
            if ticket.backend is not None and ticket.sent_at == sent_at and not ticket.computed:
                found.append(ticket)
        return found
