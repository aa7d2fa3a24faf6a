"""Limits counted in this process: answers at once, forgets at its end."""

from collections.abc import Mapping, Sequence
from typing import Final

from llmproxy.core.buckets import LEASE_WAIT_MS, period_end_ms, period_of, refill, wait_ms
from llmproxy.core.limits import Kind, Limit, Taken

KEYS_MAX = 100_000
"""More limits than this at once, none of them as new, cost the oldest ones their count."""
_SWEEP_FROM = 1_000
# Compiled, a constant costs nothing, and a member of an enum a search for its name.
_BUCKET: Final = Kind.BUCKET
_LEASES: Final = Kind.LEASES
_MONTH: Final = Kind.MONTH


class _Count:
    """A bucket's level, fraction and time, or a budget's used amount and period. `new_at_ms`: as if never used."""

    __slots__ = ("at_ms", "new_at_ms", "rest", "value")

    def __init__(self, value: int, rest: int, at_ms: int) -> None:
        self.value = value
        self.rest = rest
        self.at_ms = at_ms
        self.new_at_ms = 0


class MemoryStore:
    """A `LimitStore`. With `share` n every limit is the n-th part of itself (and at least one)."""

    def __init__(self, *, share: int = 1, lease_ttl_ms: int = 10**15, keys_max: int = KEYS_MAX) -> None:
        self._share = share
        self._lease_ttl_ms = lease_ttl_ms
        self._keys_max = keys_max
        self._counts: dict[str, _Count] = {}
        self._leases: dict[str, dict[str, int]] = {}
        self._overrides: dict[str, str] = {}
        self._sweep_at = _SWEEP_FROM
        self.overrides_version = 0

    # -- the port --------------------------------------------------------------------------------------------------

    def take(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, now_ms: int) -> Taken:
        remaining: list[int] = []
        reset_ms: list[int] = []
        counts: list[_Count | None] = []
        denied, longest_ms = -1, 0
        for position in range(len(limits)):
            limit, amount = limits[position], amounts[position]
            count = None if limit.kind is _LEASES else self._current(limit, now_ms)
            left = self._left(limit, count, now_ms)
            counts.append(count)
            remaining.append(left)
            if amount > 0:
                wait = self._wait_ms(limit, count, amount, lease, left, now_ms)
                if wait > longest_ms:
                    denied, longest_ms = position, wait
        for position in range(len(limits)):
            limit, count, amount = limits[position], counts[position], amounts[position]
            if denied < 0 and amount > 0:
                remaining[position] -= self._charge(limit, count, amount, lease, now_ms)
                reset_ms.append(0 if count is None else count.new_at_ms - now_ms)
            else:
                reset_ms.append(0 if count is None else self._reset_ms(limit, count, now_ms))
            if remaining[position] < 0:
                remaining[position] = 0
        return Taken(now_ms, remaining, reset_ms, denied=denied, wait_ms=longest_ms)

    def give(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, taken: Taken, now_ms: int) -> None:
        for position in range(len(limits)):
            limit, amount = limits[position], amounts[position]
            if limit.kind is _LEASES:
                self._hold_or_release(limit, amount, lease, now_ms)
            elif amount:
                self._correct(limit, amount, taken.at_ms, now_ms)

    def overrides(self) -> Mapping[str, str]:
        return self._overrides

    async def set_override(self, tenant: str, text: str | None) -> None:
        if text is None:
            self._overrides.pop(tenant, None)
        else:
            self._overrides[tenant] = text
        self.overrides_version += 1

    async def close(self) -> None:
        """Nothing to close."""

    # -- for whoever decides with the part of a store that is out of reach -----------------------------------------

    @property
    def share(self) -> int:
        return self._share

    def set_share(self, share: int) -> None:
        """From now on the n-th part of each limit, counted anew."""
        if share != self._share:
            self._share = share
            self._counts.clear()

    def seed(self, limit: Limit, remaining: int, at_ms: int) -> None:
        """Begin to count `limit` at this process's part of what was left of it at `at_ms`, unless it is counted."""
        if limit.key in self._counts or limit.kind is _LEASES:
            return
        count = self._current(limit, at_ms)
        left = remaining // self._share
        count.value = left if limit.kind is _BUCKET else self._part(limit.size) - left
        self._save(limit, count, at_ms)

    def forget(self) -> None:
        """All counts, but no lease."""
        self._counts.clear()

    def __len__(self) -> int:
        return len(self._counts) + len(self._leases)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _part(self, number: int) -> int:
        return number if self._share == 1 else max(1, number // self._share)

    def _current(self, limit: Limit, now_ms: int) -> _Count:
        """The count of a bucket or budget at `now_ms`. Looking changes nothing: it is kept when it is charged."""
        count = self._counts.get(limit.key)
        if limit.kind is _BUCKET:
            burst = self._part(limit.burst)
            if count is None:
                return _Count(burst, 0, now_ms)
            value, rest, at_ms = refill(count.value, count.rest, count.at_ms, limit.size, burst, now_ms, self._share)
            return _Count(value, rest, at_ms)
        period = period_of(limit.kind is _MONTH, now_ms)
        return _Count(0 if count is None or count.rest != period else count.value, period, now_ms)

    def _save(self, limit: Limit, count: _Count, now_ms: int) -> None:
        count.new_at_ms = now_ms + self._reset_ms(limit, count, now_ms)
        if limit.key not in self._counts and len(self._counts) >= self._sweep_at:
            self._sweep(now_ms)
        self._counts[limit.key] = count

    def _left(self, limit: Limit, count: _Count | None, now_ms: int) -> int:
        if count is not None:
            return count.value if limit.kind is _BUCKET else self._part(limit.size) - count.value
        held = self._leases.get(limit.key)
        if held is None:
            return self._part(limit.size)
        while held and (first := next(iter(held.items())))[1] <= now_ms:
            del held[first[0]]
        return self._part(limit.size) - len(held)

    def _wait_ms(self, limit: Limit, count: _Count | None, amount: int, lease: str, left: int, now_ms: int) -> int:
        """How long until `amount` can be had; 0 when it can."""
        if count is None:
            return LEASE_WAIT_MS if left < 1 and lease not in self._leases.get(limit.key, ()) else 0
        if limit.kind is _BUCKET:
            return wait_ms(count.value, count.rest, limit.size, min(amount, self._part(limit.burst)), self._share)
        return period_end_ms(limit.kind is _MONTH, count.rest) - now_ms if amount > left else 0

    def _reset_ms(self, limit: Limit, count: _Count, now_ms: int) -> int:
        """How long until it is as new."""
        if limit.kind is _BUCKET:
            return wait_ms(count.value, count.rest, limit.size, self._part(limit.burst), self._share)
        return period_end_ms(limit.kind is _MONTH, count.rest) - now_ms

    def _charge(self, limit: Limit, count: _Count | None, amount: int, lease: str, now_ms: int) -> int:
        """Take it, and say how much that was."""
        if count is None:
            return self._hold_or_release(limit, amount, lease, now_ms)
        if limit.kind is _BUCKET:
            amount = min(amount, self._part(limit.burst))
            count.value -= amount
        else:
            count.value += amount
        self._save(limit, count, now_ms)
        return amount

    def _correct(self, limit: Limit, amount: int, taken_at_ms: int, now_ms: int) -> None:
        count = self._current(limit, now_ms)
        if limit.kind is _BUCKET:
            count.value -= amount
            burst = self._part(limit.burst)
            if count.value >= burst:
                count.value, count.rest = burst, 0
        elif count.rest == period_of(limit.kind is _MONTH, taken_at_ms):
            count.value = max(0, count.value + amount)
        else:
            # What was taken in a period that is over is of no interest any more.
            return
        self._save(limit, count, now_ms)

    def _hold_or_release(self, limit: Limit, amount: int, lease: str, now_ms: int) -> int:
        """1 when a lease is held now that was not before."""
        held = self._leases.get(limit.key)
        if amount > 0:
            if held is None:
                held = self._leases[limit.key] = {}
            # Taken out first, so that the one that expires first stays first.
            known = held.pop(lease, None)
            latest_ms = next(reversed(held.values()), 0)
            held[lease] = until_ms = now_ms + self._lease_ttl_ms
            if latest_ms > until_ms:
                # The clock was set back since: those that end later stay behind it.
                for name in [name for name, at_ms in held.items() if at_ms > until_ms]:
                    held[name] = held.pop(name)
            return 0 if known is not None else 1
        if amount < 0 and held is not None:
            held.pop(lease, None)
            if not held:
                del self._leases[limit.key]
        return 0

    def _sweep(self, now_ms: int) -> None:
        """Forget what is as new; next when twice as many are there as are now."""
        counts = self._counts
        for key in [key for key, count in counts.items() if count.new_at_ms <= now_ms]:
            del counts[key]
        excess = len(counts) - self._keys_max * 9 // 10
        for key in [key for key, _ in zip(counts, range(excess), strict=False)]:
            del counts[key]
        self._sweep_at = min(max(_SWEEP_FROM, 2 * len(counts)), self._keys_max)
