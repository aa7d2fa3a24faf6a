"""Budgets in money, kept by counting what replicas have cost and how many are affordable from here on.

By the hour: never more replicas than an hour of them costs, so no hour can, however the hours are cut. By the month:
what is left, less what the minimum will cost until the month is over, is what may be spent above the minimum, and never
so fast that it, or the next month's, would be gone within seven hours, as what is let go costs money for as long as it
drains; when not even the minimum can be paid to the end, as many as can. What is spent counts every replica that
exists: starting, serving, draining, asleep, and ending until it is gone. One that ended or came between two looks is
taken to have been there all the time between.
"""

from dataclasses import dataclass
from math import floor, inf
from typing import Final

from llmproxy.policy.scaling.calendar_month import HOUR_S, hour_of, month_of

_SLIVER: Final = 1e-9
_AHEAD_H: Final = 6.75
"""How long replicas above the minimum can be paid for at least. Looks lie an hour apart at the latest, and what is let
go is gone two looks later, so what an hour costs was affordable two looks ago: x(k+1) = x(k) - x(k-2) / 6.75. With 27/4
or more, x never falls by more than a third from look to look, and so never below nothing; with less it swings below.
Looks every few seconds and drains of minutes, as usual, leave some of it over."""


@dataclass(frozen=True, slots=True)
class Budget:
    """`price`: of one replica for one hour, in `currency`. None sets no limit."""

    price: float
    per_hour: float | None = None
    per_month: float | None = None
    currency: str = "USD"
    alert_at: tuple[float, ...] = (0.5, 0.8, 1.0)

    def __post_init__(self) -> None:
        if self.price <= 0:
            raise ValueError("a budget needs the price of a replica for an hour, more than 0")
        if (self.per_hour is not None and self.per_hour < 0) or (self.per_month is not None and self.per_month < 0):
            raise ValueError("a budget cannot be negative")
        if any(share <= 0 for share in self.alert_at):
            raise ValueError("alert_at must be shares of the budget, more than 0")


@dataclass(frozen=True, slots=True)
class Spent:
    """In the current hour and month, to be stored by the loop and given back to a fresh process."""

    unix_s: float
    hour: float = 0.0
    month: float = 0.0


class Purse:
    """The one writer of what is spent."""

    __slots__ = ("_alerted", "_budget", "_rates", "spent")

    def __init__(self, budget: Budget, spent: Spent | None = None) -> None:
        self._budget = budget
        self._alerted: set[tuple[str, float, float]] = set()
        self._rates: tuple[float, float] | None = None
        """By the last look, for an hour: of all that existed, and of what stayed."""
        self.spent = spent

    def pay(self, replicas: int, unix_s: float, cost_per_hour: float | None = None, leaving: float = 0.0) -> list[str]:
        """`replicas` exist now, at `cost_per_hour` in all where they differ in price, of which `leaving` is of those
        that drain; those of the last call did until now. Gives the alerts whose threshold was just crossed."""
        before = self.spent
        rate = self._rate_since(replicas * self._budget.price if cost_per_hour is None else cost_per_hour, leaving)
        hour, month = hour_of(unix_s)[0], month_of(unix_s)[0]
        if before is None or unix_s < before.unix_s:
            # The first call, or the wall clock was set back: nothing is known of the time between.
            kept = before or Spent(unix_s)
            self.spent = Spent(unix_s, kept.hour, kept.month)
            return []
        rate /= HOUR_S
        self.spent = Spent(
            unix_s,
            (before.hour if before.unix_s >= hour else 0.0) + rate * (unix_s - max(before.unix_s, hour)),
            (before.month if before.unix_s >= month else 0.0) + rate * (unix_s - max(before.unix_s, month)),
        )
        return self._alerts(hour, month)

    def _rate_since(self, rate: float, leaving: float) -> float:
        """The most that what there was since the last look can have cost in an hour, now that all costs `rate`."""
        staying, before = rate - leaving, self._rates
        self._rates = rate, staying
        if before is None:
            return rate
        return max(rate, before[0] + max(staying - before[1], 0.0))

    def affordable(self, minimum: int, unix_s: float) -> int | None:
        """The most replicas there may be from now on; None: no limit."""
        most = self.affordable_per_hour(minimum, unix_s)
        return None if most is None else floor(most / self._budget.price + _SLIVER)

    def affordable_per_hour(self, minimum: int, unix_s: float) -> float | None:
        """The most that all replicas together may cost in an hour from now on; None: no limit."""
        budget = self._budget
        most = inf
        if budget.per_hour is not None:
            most = budget.per_hour
        if budget.per_month is not None:
            most = min(most, self._by_month(budget.per_month, minimum, unix_s))
        return None if most == inf else most

    def _by_month(self, per_month: float, minimum: int, unix_s: float) -> float:
        price = self._budget.price
        left = per_month - (self.spent.month if self.spent is not None else 0.0)
        remaining_h = max((month_of(unix_s)[1] - unix_s) / HOUR_S, 1 / HOUR_S)
        spare = left - minimum * price * remaining_h
        if left <= 0:
            return 0.0
        most = left / remaining_h if spare < 0 else minimum * price + spare / min(remaining_h, _AHEAD_H)
        # What runs on into the next month, the minimum too, is paid for from that one's budget.
        return min(most, per_month / _AHEAD_H)

    def _alerts(self, hour: float, month: float) -> list[str]:
        budget, spent, found = self._budget, self.spent, []
        if spent is None:
            return []
        for word, began, limit, amount in (
            ("hour", hour, budget.per_hour, spent.hour),
            ("month", month, budget.per_month, spent.month),
        ):
            for share in budget.alert_at:
                key = (word, share, began)
                if limit is None or amount < share * limit - _SLIVER or key in self._alerted:
                    continue
                self._alerted = {old for old in self._alerted if old[0] != word or old[2] == began} | {key}
                found.append(
                    f"{share:.0%} of the budget of the {word} is spent: {amount:.2f} of {limit:.2f} {budget.currency}"
                )
        return found
