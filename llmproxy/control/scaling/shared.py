"""What the proxies that scale one pool together know of each other."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmproxy.control.scaling.fleet import Fleet, Replica
from llmproxy.control.scaling.orders import Order, Orders
from llmproxy.control.scaling.reports import Report, Reports
from llmproxy.control.scaling.tables import LocalTable, Table


@dataclass(slots=True)
class Shared:
    """One pool's; by default, that of a proxy that shares with nobody. `pauses` is every pool's on the same Redis."""

    pauses: Table = field(default_factory=LocalTable)
    events: Table = field(default_factory=LocalTable)
    registered: Table = field(default_factory=LocalTable)
    """Backends that registered themselves (`control/registrations.py`)."""
    reports: Reports | None = None
    report_table: Table | None = None
    orders: Orders | None = None
    on_heard: Callable[[], None] = lambda: None

    @property
    def known(self) -> bool:
        """Whether it is known what is paused and asked for. Nobody acts before that."""
        return self.pauses.known and self.events.known

    @property
    def in_force(self) -> Mapping[str, Order]:
        return self.orders.in_force if self.orders is not None else {}

    def others(self, now: float) -> dict[str, Report]:
        return self.reports.others(now) if self.reports is not None else {}

    def have_left(self, replica: Replica, now: float) -> bool:
        return self.reports is None or self.reports.have_left(replica.id, now)

    async def sync(self, token: int | None, fleet: Fleet, report: Report, now: float) -> None:
        """Tell and hear everything, where there is anybody."""
        if self.orders is None or self.reports is None or self.report_table is None:
            return
        self.reports.say(report)
        await asyncio.gather(
            self.pauses.sync(),
            self.events.sync(),
            self.registered.sync(),
            self.report_table.sync(),
            self.orders.sync(token, fleet),
        )
        self.reports.hear(now)
        self.on_heard()

    async def leave(self) -> None:
        """This proxy ends."""
        if self.reports is not None and self.report_table is not None:
            self.reports.leave()
            await self.report_table.sync()
