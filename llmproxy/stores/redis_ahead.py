"""What a proxy takes from Redis before it is asked for, so that a busy tenant's requests need no round trip.

Where the same limits are asked for often, an account is opened for each: some hundredths of a second's worth is taken
from the bucket or budget by the script, as for any request, and requests pass out of that at once. What they turn out
not to have used comes back to the account, and what is over goes back to Redis. Places that are released are kept a
while for those who come next.

What passes was taken before, so all proxies together let nothing pass that Redis did not grant. But what one holds,
another cannot have: it is no more than a small part of what is left, and nothing once less than half of the limit is. A
limit that is small or nearly used up is asked for request by request. And while something of a bucket is held here, the
bucket refills: over any time t it passes `burst + rate * t` and what was held when t began, at most.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from llmproxy.core.buckets import DAY_MS, MINUTE_MS, month_of, month_start_ms, period_end_ms, period_of
from llmproxy.core.limits import Kind, Limit, Pending, Taken
from llmproxy.stores.redis_batch import Gift

TICK_S: Final = 0.02
"""How often what is held is made to fit what is used."""
_OFTEN: Final = 4
"""So many questions between two ticks open accounts."""
_IDLE_TICKS: Final = 5
"""Unused for so long, an account is closed."""
_TRIM_TICKS: Final = 25
_PART: Final = 64
"""Of what is left of a bucket or budget, one part in so many is held at most, by all proxies together."""
_LEAST: Final = 8
"""Less than this is not worth holding."""
_PLACES_PART: Final = 8
"""The same of places, which come back sooner."""
_ACCOUNTS_MAX: Final = 2_000
_NEVER_MS: Final = 10**18
_BUCKET: Final = Kind.BUCKET
_LEASES: Final = Kind.LEASES


class Account:
    """What is held of one limit; below zero it is owed. `left` is what Redis said remains besides. A budget's period
    is from `since_ms` to `ends_ms`. Places have the names in `spares`, of which `idle` were not needed lately."""

    __slots__ = (
        "asking",
        "ends_ms",
        "held",
        "idle",
        "idle_ticks",
        "left",
        "limit",
        "since_ms",
        "spares",
        "used",
        "used_before",
    )

    def __init__(self, limit: Limit, left: int, now_ms: int) -> None:
        self.limit = limit
        self.left = left
        self.since_ms, self.ends_ms = 0, _NEVER_MS
        if limit.kind is Kind.DAY:
            self.since_ms = now_ms - now_ms % DAY_MS
        elif limit.kind is Kind.MONTH:
            self.since_ms = month_start_ms(month_of(now_ms))
        if self.since_ms:
            monthly = limit.kind is Kind.MONTH
            self.ends_ms = period_end_ms(monthly, period_of(monthly, now_ms))
        self.held = 0
        self.used = 0
        self.used_before = 0
        self.idle_ticks = 0
        self.asking = False
        self.spares: list[str] = []
        self.idle = 0

    def most(self, proxies: int) -> int:
        """How much may be held."""
        limit = self.limit
        if self.left * 2 < (limit.burst if limit.kind is _BUCKET else limit.size):
            return 0
        if limit.kind is _LEASES:
            return self.left // (_PLACES_PART * proxies)
        most = self.left // (_PART * proxies)
        return most if most >= _LEAST else 0

    def keep(self, amount: int, name: str, taken_at_ms: int, proxies: int) -> bool:
        """Take what is given; False when it belongs to another period, or is one place too many."""
        if self.limit.kind is _LEASES:
            if amount > 0 or len(self.spares) >= self.most(proxies):
                return False
            self.spares.append(name)
            return True
        if not self.since_ms <= taken_at_ms < self.ends_ms:
            return False
        self.held -= amount
        return True

    def remaining(self) -> int:
        """Of the whole limit, as far as it is known here."""
        limit = self.limit
        if limit.kind is _LEASES:
            return self.left + len(self.spares)
        left = self.left + self.held
        return min(left, limit.burst) if limit.kind is _BUCKET else left

    def reset_ms(self, now_ms: int) -> int:
        """Until it is as new."""
        limit = self.limit
        if limit.kind is _BUCKET:
            return ((limit.burst - self.remaining()) * MINUTE_MS + limit.size - 1) // limit.size
        return 0 if limit.kind is _LEASES else self.ends_ms - now_ms


class Advance(Pending):
    """A question of the store's own, for an account."""

    __slots__ = ("account",)

    def __init__(self, account: Account, amount: int, now_ms: int) -> None:
        super().__init__((account.limit,), (amount,), "", now_ms)
        self.account = account


class Ahead:
    """The accounts of one link to Redis. `names` has the limit and the name under which Redis knows a request's place,
    where that is not the request's own."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.names: dict[str, tuple[Limit, str]] = {}
        self._asked: dict[str, int] = {}
        self._ticks = 0

    @property
    def busy(self) -> bool:
        """Whether there is something to be done at the next tick."""
        return bool(self.accounts) or bool(self._asked)

    # -- requests --------------------------------------------------------------------------------------------------

    def take(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, now_ms: int) -> Taken | None:
        """Out of what is held here; None when there is not enough, and then nothing is taken. `now_ms` by Redis's
        clock."""
        known = self.accounts
        found: list[Account] = []
        places = 0
        for position, limit in enumerate(limits):
            account = known.get(limit.key)
            if account is None or not _same(account.limit, limit):
                return None
            amount = amounts[position]
            if limit.kind is _LEASES:
                places += amount
                if amount > 0 and not account.spares:
                    return None
            elif amount > account.held or now_ms >= account.ends_ms:
                return None
            found.append(account)
        if places > 1 or not any(amounts):
            # One name for several of them: they would have to be passed on together. And who only looks wants to know.
            return None
        remaining: list[int] = []
        reset_ms: list[int] = []
        for position, account in enumerate(found):
            amount = amounts[position]
            account.used += amount
            if account.limit.kind is not _LEASES:
                account.held -= amount
            elif amount > 0:
                self.names[lease] = (account.limit, account.spares.pop())
                account.idle = min(account.idle, len(account.spares))
            remaining.append(max(0, account.remaining()))
            reset_ms.append(account.reset_ms(now_ms))
        return Taken(now_ms, remaining, reset_ms)

    def asked(self, limits: Sequence[Limit], amounts: Sequence[int], taken: Taken) -> None:
        """Redis was asked for a request. Where that happens often, accounts are opened."""
        if not limits:
            return
        counts, key = self._asked, limits[0].key
        count = counts[key] = counts.get(key, 0) + 1
        if count < _OFTEN or taken.denied >= 0:
            return
        known = self.accounts
        for position, limit in enumerate(limits):
            account = known.get(limit.key)
            if account is None:
                if len(known) >= _ACCOUNTS_MAX:
                    return
                account = known[limit.key] = Account(limit, taken.remaining[position], taken.at_ms)
            elif _same(account.limit, limit):
                account.left = taken.remaining[position]
            account.used += amounts[position]

    def name_of(self, lease: str) -> str:
        """What Redis calls the place of a request that is over."""
        known = self.names.pop(lease, None)
        return lease if known is None else known[1]

    def give(
        self, limits: Sequence[Limit], amounts: Sequence[int], name: str, taken_at_ms: int, proxies: int
    ) -> tuple[list[Limit], list[int]]:
        """Corrections, to accounts where there are any, and places, known to Redis as `name`, which are kept for other
        requests. What is returned of them is Redis's affair."""
        rest: list[Limit] = []
        rest_amounts: list[int] = []
        for position, limit in enumerate(limits):
            amount = amounts[position]
            account = self.accounts.get(limit.key)
            if amount and not (
                account is not None and _same(account.limit, limit) and account.keep(amount, name, taken_at_ms, proxies)
            ):
                rest.append(limit)
                rest_amounts.append(amount)
        return rest, rest_amounts

    # -- the store -------------------------------------------------------------------------------------------------

    def answered(self, advance: Advance, taken: Taken | None) -> bool:
        """What Redis made of an advance (None: nothing); False when what it granted is to be given back."""
        account = advance.account
        account.asking = False
        if taken is None:
            return True
        account.left = taken.remaining[0]
        if not taken.ok:
            return True
        if self.accounts.get(account.limit.key) is not account:
            return False
        account.held += advance.amounts[0]
        return True

    def tick(self, proxies: int, now_ms: int) -> tuple[list[Advance], list[Gift]]:
        """What to ask for, and what to give back, so that what is held fits what is used."""
        self._asked = {}
        self._ticks += 1
        advances: list[Advance] = []
        gifts: list[Gift] = []
        for account in list(self.accounts.values()):
            account.idle_ticks = 0 if account.used else account.idle_ticks + 1
            if account.idle_ticks > _IDLE_TICKS or now_ms >= account.ends_ms:
                gifts += self._close(account)
                continue
            if account.limit.kind is _LEASES:
                gifts += self._trim(account, proxies)
                lacks = 0
            else:
                wanted = min(2 * max(account.used, account.used_before), account.most(proxies))
                if account.held < 0 or account.held > 2 * wanted:
                    gifts.append(Gift((account.limit,), (wanted - account.held,), "", account.since_ms))
                    account.held = wanted
                lacks = max(wanted - account.held, 0)
            if account.used and not account.asking:
                # Also where nothing is lacking: to see what is left.
                account.asking = True
                advances.append(Advance(account, lacks, now_ms))
            account.used_before, account.used = account.used, 0
        return advances, gifts

    def renewals(self) -> Iterator[Gift]:
        """All places that were kept, in use or not."""
        for limit, name in self.names.values():
            yield Gift((limit,), (1,), name, 0)
        for account in self.accounts.values():
            for name in account.spares:
                yield Gift((account.limit,), (1,), name, 0)

    def close(self) -> list[Gift]:
        """All accounts, and what to give back of them."""
        return [gift for account in list(self.accounts.values()) for gift in self._close(account)]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _trim(self, account: Account, proxies: int) -> list[Gift]:
        """Places that are too many, or were not needed for a while."""
        spares = account.spares
        excess = len(spares) - account.most(proxies)
        if self._ticks % _TRIM_TICKS == 0:
            excess, account.idle = max(excess, account.idle), len(spares)
        gone = [spares.pop() for _ in range(min(excess, len(spares)))]
        account.idle = min(account.idle, len(spares))
        return [Gift((account.limit,), (-1,), name, 0) for name in gone]

    def _close(self, account: Account) -> list[Gift]:
        limit = account.limit
        del self.accounts[limit.key]
        if limit.kind is _LEASES:
            return [Gift((limit,), (-1,), name, 0) for name in account.spares]
        # Of a period that is over, the script takes nothing back.
        return [Gift((limit,), (-account.held,), "", account.since_ms)] if account.held else []


def _same(one: Limit, other: Limit) -> bool:
    return one is other or (one.size == other.size and one.burst == other.burst and one.kind is other.kind)
