"""What replicas cost, and whose requests it was for.

Every second the price of every replica that exists accrues: to `busy` where it has a request, else to `idle`. Busy cost
is shared out among the requests that end, by the time they spent at a backend. Idle cost is borne by all who used the
pool so far, in that same proportion: whoever uses a fleet most pays most for its readiness. Nothing is lost; while
nobody has used a pool, its cost waits.

A proxy counts the whole price of the fleet it sees. Of several over one fleet, each sees all of it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool
from llmproxy.telemetry.usage import Usage, Who

EVERY_S: Final = 1.0
HOUR_S: Final = 3600.0
_MARKETS: Final = ("on_demand", "spot")
_SNAPSHOT_S: Final = 60.0
Kind = tuple[str, bool]
_Totals = dict[Who, tuple[float, int, int]]
"""Cost, requests, tokens."""


@dataclass(slots=True)
class Account:
    """One pool's. `by` holds what has been shared out; `busy + idle` is that and what waits."""

    per_hour: float = 0.0
    busy: float = 0.0
    idle: float = 0.0
    by: dict[Who, float] = field(default_factory=dict)
    busy_waits: float = 0.0
    idle_waits: float = 0.0
    kinds: dict[Kind, float] = field(default_factory=dict)
    """The same money by tier of capacity (empty where there are none) and whether at a spot price."""


class Costs:
    """`outside(pool)`: the price by the hour of replicas that are no members of the pool (starting, resting), by kind.
    `expired` whenever `deadline` has passed (a `Timed` of the wire)."""

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool[Any]]],
        usage: Usage,
        clock: Clock,
        *,
        outside: Callable[[str], Mapping[Kind, float]] = lambda pool: {},
    ) -> None:
        self.deadline = 0.0
        self.accounts: dict[str, Account] = {}
        self._pools = pools
        self._usage = usage
        self._clock = clock
        self._outside = outside
        self._began = self._at = clock()
        self._seconds: dict[Who, float] = {}
        """Time at backends that was accounted for."""
        self._snapshots: deque[tuple[float, _Totals]] = deque([(self._at, {})])

    def expired(self, now: float) -> None:
        """Take stock."""
        self.deadline = now + EVERY_S
        elapsed_h, self._at = max(now - self._at, 0.0) / HOUR_S, now
        pools = self._pools()
        for name in self.accounts.keys() - pools.keys():
            del self.accounts[name]
        for name, pool in pools.items():
            priced = [(one.spec.price_per_hour, one.load.in_flight > 0) for one in pool.backends]
            outside = self._outside(name)
            resting = sum(outside.values())
            account = self.accounts.get(name)
            if account is None:
                if not resting and not any(price for price, _ in priced):
                    continue
                account = self.accounts[name] = Account()
            busy = sum(price for price, at_work in priced if at_work)
            idle = sum(price for price, at_work in priced if not at_work) + resting
            account.per_hour = busy + idle
            account.busy += busy * elapsed_h
            account.idle += idle * elapsed_h
            account.busy_waits += busy * elapsed_h
            account.idle_waits += idle * elapsed_h
            kinds = [((one.spec.tier, one.spec.spot), one.spec.price_per_hour) for one in pool.backends]
            for kind, price in (*kinds, *outside.items()):
                account.kinds[kind] = account.kinds.get(kind, 0.0) + price * elapsed_h
            self._share_out(name, account)
        self._usage.is_priced = bool(self.accounts)
        if now - self._snapshots[-1][0] >= _SNAPSHOT_S:
            self._snapshots.append((now, self._totals()))
            while len(self._snapshots) > 2 and now - self._snapshots[1][0] >= HOUR_S:
                self._snapshots.popleft()

    def _share_out(self, pool: str, account: Account) -> None:
        whole: dict[Who, float] = {who: use.at_backend_s for who, use in self._usage.rows.items() if who[0] == pool}
        fresh = {who: seconds - self._seconds.get(who, 0.0) for who, seconds in whole.items()}
        self._seconds |= whole
        if _split(account.busy_waits, fresh, account.by):
            account.busy_waits = 0.0
        if _split(account.idle_waits, whole, account.by):
            account.idle_waits = 0.0

    def _totals(self) -> _Totals:
        rows = self._usage.rows
        return {
            who: (cost, rows[who].requests, rows[who].tokens)
            for account in self.accounts.values()
            for who, cost in account.by.items()
            if who in rows
        }

    # -- views -----------------------------------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """For the admin API: since the process began, and the last hour."""
        now, (then, before) = self._clock(), self._snapshots[0]
        totals = self._totals()
        recent = {who: _less(row, before.get(who, (0.0, 0, 0))) for who, row in totals.items()}
        return {
            "since_s": round(now - self._began, 1),
            "recent_s": round(now - then, 1),
            "pools": {
                name: {
                    "per_hour": _money(account.per_hour),
                    "cost": _money(account.busy + account.idle),
                    "busy": _money(account.busy),
                    "idle": _money(account.idle),
                    "not_shared_out_yet": _money(account.busy_waits + account.idle_waits),
                    **_ratios(_of(totals, name)),
                    "tiers": _by_kind(account, 0),
                    "markets": _by_kind(account, 1),
                    "recent": _figures(_of(recent, name)),
                    "models": _by(totals, name, 1),
                    "tenants": _by(totals, name, 2),
                }
                for name, account in self.accounts.items()
            },
        }

    def readers(self) -> Mapping[str, Callable[[], Mapping[tuple[str, ...], float]]]:
        """For the metrics, by name."""
        accounts = self.accounts
        return {
            "llmproxy_cost_per_hour": lambda: {(name,): one.per_hour for name, one in accounts.items()},
            "llmproxy_cost_total": lambda: {
                (name, use): amount
                for name, one in accounts.items()
                for use, amount in (("busy", one.busy), ("idle", one.idle))
            },
            "llmproxy_tier_cost_total": lambda: {
                (name, tier, _MARKETS[spot]): amount
                for name, one in accounts.items()
                for (tier, spot), amount in one.kinds.items()
            },
            "llmproxy_model_cost_total": lambda: self._sums((0, 1)),
            "llmproxy_tenant_cost_total": lambda: self._sums((2,)),
            "llmproxy_cost_per_thousand_tokens": lambda: self._recently(2, 1000.0),
            "llmproxy_cost_per_request": lambda: self._recently(1, 1.0),
        }

    def _sums(self, parts: tuple[int, ...]) -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for account in self.accounts.values():
            for who, cost in account.by.items():
                key = tuple(who[part] for part in parts)
                found[key] = found.get(key, 0.0) + cost
        return found

    def _recently(self, per: int, times: float) -> dict[tuple[str, ...], float]:
        """Cost for each of what stands at `per` of a total, by pool and model, in the last hour."""
        before = self._snapshots[0][1]
        sums: dict[tuple[str, ...], tuple[float, int, int]] = {}
        for who, row in self._totals().items():
            more = _less(row, before.get(who, (0.0, 0, 0)))
            sums[who[:2]] = _sum([sums.get(who[:2], (0.0, 0, 0)), more])
        return {key: row[0] / row[per] * times for key, row in sums.items() if row[per]}


def _by_kind(account: Account, part: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, amount in account.kinds.items():
        name = _MARKETS[kind[1]] if part else kind[0]
        if name:
            found[name] = found.get(name, 0.0) + amount
    return {name: _money(amount) for name, amount in found.items()}


def _split(amount: float, by: Mapping[Who, float], into: dict[Who, float]) -> bool:
    """Add `amount` in proportion; False when there is nobody to share it."""
    whole = sum(by.values())
    if whole <= 0:
        return False
    for who, part in by.items():
        into[who] = into.get(who, 0.0) + amount * part / whole
    return True


def _less(row: tuple[float, int, int], before: tuple[float, int, int]) -> tuple[float, int, int]:
    return row[0] - before[0], row[1] - before[1], row[2] - before[2]


def _sum(rows: Iterable[tuple[float, int, int]]) -> tuple[float, int, int]:
    cost, requests, tokens = 0.0, 0, 0
    for row in rows:
        cost, requests, tokens = cost + row[0], requests + row[1], tokens + row[2]
    return cost, requests, tokens


def _of(totals: _Totals, pool: str) -> tuple[float, int, int]:
    return _sum(row for who, row in totals.items() if who[0] == pool)


def _by(totals: _Totals, pool: str, part: int) -> dict[str, Any]:
    names = sorted({who[part] for who in totals if who[0] == pool})
    return {
        name: _figures(_sum(row for who, row in totals.items() if who[0] == pool and who[part] == name))
        for name in names
    }


def _figures(row: tuple[float, int, int]) -> dict[str, Any]:
    return {"cost": _money(row[0]), **_ratios(row)}


def _ratios(row: tuple[float, int, int]) -> dict[str, Any]:
    cost, requests, tokens = row
    return {
        "requests": requests,
        "tokens": tokens,
        "per_request": _money(cost / requests) if requests else None,
        "per_thousand_tokens": _money(cost / tokens * 1000) if tokens else None,
    }


def _money(amount: float) -> float:
    return round(amount, 9)
