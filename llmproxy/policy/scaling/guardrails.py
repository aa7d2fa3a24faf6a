"""What no policy can talk the loop into: bounds, budgets and the kill switch.

In this order, the later the stronger: no fewer than `min`, no more than `max`, no more than the budget pays for
(so a budget may go below `min`: never past a budget). While paused nothing is changed at all, in either direction: the
operator has taken over.
"""

from dataclasses import dataclass
from typing import Final

from llmproxy.policy.scaling.base import Signals
from llmproxy.policy.scaling.money import Budget, Purse, Spent

RATE_WINDOW_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one pool. `changes_per_hour`: replicas added, and apart from that removed; None sets no limit."""

    min: int = 0
    max: int = 1
    changes_per_hour: int | None = None
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.max:
            raise ValueError("min must lie between 0 and max")
        if self.changes_per_hour is not None and self.changes_per_hour < 1:
            raise ValueError("changes_per_hour must be at least 1")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What may be done: `replicas`, the `limits` that made a difference, and alerts to send."""

    replicas: int
    limits: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    per_hour: float | None = None
    """What they may cost in an hour, and whatever drains or sleeps with them; None: no limit."""
    full: bool = False
    """No room, or no money, for as many as are wanted."""


class Guardrails:
    """Keeps count of money and changes. `paused` is set by the operator's command alone."""

    __slots__ = ("_added", "_limits", "_purse", "_removed", "paused")

    def __init__(self, limits: Limits, spent: Spent | None = None) -> None:
        self._limits = limits
        self._purse = Purse(limits.budget, spent) if limits.budget is not None else None
        self._added: list[tuple[float, int]] = []
        self._removed: list[tuple[float, int]] = []
        self.paused = False

    @property
    def spent(self) -> Spent | None:
        """To be stored, and given to the next process."""
        return self._purse.spent if self._purse is not None else None

    @property
    def budget(self) -> Budget | None:
        """The one it keeps to."""
        return self._limits.budget

    def resume(self, spent: Spent) -> None:
        """What an earlier process had spent; before the first `rule`, or it is too late."""
        if self._purse is not None and self._purse.spent is None:
            self._purse.spent = spent

    def follow(self, earlier: "Guardrails") -> None:
        """Take the place of another, with other limits: changes made under it count on."""
        self._added, self._removed, self.paused = earlier._added, earlier._removed, earlier.paused

    def rule(self, wanted: int, signals: Signals, now: float) -> Ruling:
        """What of `wanted` may be done."""
        actual, limits = signals.actual, self._limits
        existing = actual + signals.draining + signals.sleeping
        # Without a wall clock months cannot be told apart; the process's own clock at least counts on.
        unix_s = now if signals.unix_s is None else signals.unix_s
        purse = self._purse
        alerts: tuple[str, ...] = ()
        if purse is not None and limits.budget is not None:
            leaving = signals.leaving_per_hour if signals.tiers else signals.draining * limits.budget.price
            alerts = tuple(purse.pay(existing, unix_s, signals.cost_per_hour, leaving))
        if self.paused:
            return Ruling(actual, ("paused",) if wanted != actual else (), alerts)
        said = []
        allowed = self._by_rate(wanted, actual, now)
        if allowed != wanted:
            said.append(f"at most {limits.changes_per_hour} changes in an hour")
        if allowed < limits.min:
            allowed = limits.min
            said.append(f"min {limits.min}")
        full = allowed > limits.max
        if full:
            allowed = limits.max
            said.append(f"max {limits.max}")
        most = purse.affordable(limits.min, unix_s) if purse is not None else None
        if most is not None and limits.budget is not None:
            # What drains is paid for too. What sleeps is had back for the same money, or goes.
            most = max(most - signals.draining, min(actual, most), 0)
            if allowed > most:
                allowed, full = most, True
                said.append(f"the budget pays for {most}")
        per_hour = purse.affordable_per_hour(limits.min, unix_s) if purse is not None else None
        return Ruling(allowed, tuple(said), alerts, per_hour, full)

    @property
    def least(self) -> int:
        """`min`."""
        return self._limits.min

    def done(self, change: int, now: float) -> None:
        """So many replicas were added (removed: negative) at `now`."""
        if change:
            (self._added if change > 0 else self._removed).append((now, abs(change)))

    def _by_rate(self, wanted: int, actual: int, now: float) -> int:
        cap = self._limits.changes_per_hour
        if cap is None or wanted == actual:
            return wanted
        log = self._added if wanted > actual else self._removed
        log[:] = [(at, change) for at, change in log if at > now - RATE_WINDOW_S]
        step = min(abs(wanted - actual), max(cap - sum(change for _, change in log), 0))
        return actual + step if wanted > actual else actual - step
