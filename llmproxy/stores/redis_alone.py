"""What a proxy does while Redis is out of reach: decide for itself, and keep account of what it owes."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final

from llmproxy.core.limits import Kind, Limit, Taken
from llmproxy.stores.memory import MemoryStore
from llmproxy.stores.redis_ahead import Ahead
from llmproxy.stores.redis_batch import Gift

KEYS_MAX = 20_000
_GIFT_LIMITS = 50
_DENY_WAIT_MS = 1_000
_LEASES: Final = Kind.LEASES


class OnFailure(Enum):
    """What to decide without Redis."""

    LOCAL = "local"
    """By this process's part of each limit."""
    ALLOW = "allow"
    """Everything passes, uncounted."""
    DENY = "deny"
    """Nothing passes."""


class Alone:
    """`counts` says how questions were decided. Leases are counted here whoever granted them, so that they are known
    when Redis goes, and renewed while it is there."""

    def __init__(self, on_failure: OnFailure) -> None:
        self.on_failure = on_failure
        self.store = MemoryStore(keys_max=KEYS_MAX)
        self.counts: Counter[str] = Counter()
        self.held: dict[str, tuple[Limit, ...]] = {}
        self.dropped = 0
        self._seen: dict[str, tuple[int, int]] = {}
        self._owed: dict[str, tuple[Limit, int, int]] = {}
        self._released: deque[tuple[Limit, str]] = deque(maxlen=KEYS_MAX)

    def take(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, now_ms: int) -> Taken:
        """Decide without Redis."""
        self.counts[self.on_failure.value] += 1
        if self.on_failure is OnFailure.ALLOW:
            return Taken(now_ms, local=True, uncounted=True)
        if self.on_failure is OnFailure.DENY:
            return Taken(now_ms, wait_ms=_DENY_WAIT_MS, local=True, uncounted=True, failed=True)
        for limit in limits:
            seen = self._seen.pop(limit.key, None)
            if seen is not None:
                self.store.seed(limit, seen[0], seen[1])
        taken = self.store.take(limits, amounts, lease, now_ms)
        taken.local = True
        if taken.ok:
            self.owe(limits, amounts, lease, now_ms)
            self.hold(limits, amounts, lease, taken, now_ms)
        return taken

    def granted(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, taken: Taken, now_ms: int) -> None:
        """Redis answered: remember what is left, and the leases that are held now."""
        seen = self._seen
        if len(seen) > KEYS_MAX:
            seen.clear()
        for limit, remaining in zip(limits, taken.remaining, strict=True):
            seen[limit.key] = (remaining, now_ms)
        if lease and taken.denied < 0:
            self.hold(limits, amounts, lease, taken, now_ms)

    def take_over(self, ahead: Ahead, now_ms: int) -> None:
        """What was taken ahead is this process's to account for from now on."""
        for account in ahead.accounts.values():
            self._seen[account.limit.key] = (max(0, account.remaining()), now_ms)
        for gift in ahead.close():
            self.owe(gift.limits, gift.amounts, gift.lease, gift.taken_at_ms)
        for limit, name in ahead.names.values():
            self.hold((limit,), (1,), name, Taken(now_ms), now_ms)

    def hold(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, taken: Taken, now_ms: int) -> None:
        leases = tuple(
            limit for limit, amount in zip(limits, amounts, strict=True) if limit.kind is _LEASES and amount > 0
        )
        if leases:
            self.held[lease] = leases
            self.store.give(leases, (1,) * len(leases), lease, taken, now_ms)

    def release(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, taken: Taken, now_ms: int) -> None:
        """Leases that were given back are held no longer."""
        if self.held.pop(lease, None) is not None:
            for limit, amount in zip(limits, amounts, strict=True):
                if limit.kind is _LEASES and amount < 0:
                    self.store.give((limit,), (amount,), lease, taken, now_ms)

    def correct(self, limits: Sequence[Limit], amounts: Sequence[int], taken: Taken, now_ms: int) -> None:
        """What was decided here turned out to be more or less."""
        for limit, amount in zip(limits, amounts, strict=True):
            if limit.kind is not _LEASES:
                self.store.give((limit,), (amount,), "", taken, now_ms)

    def unlend(self, limits: Sequence[Limit], lease: str) -> None:
        """Redis may have lent these, and not been heard."""
        self._released.extend((limit, lease) for limit in limits if limit.kind is _LEASES)

    def owe(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, at_ms: int) -> None:
        """To be said to Redis when it is back. What is owed of one limit is added up."""
        owed = self._owed
        for limit, amount in zip(limits, amounts, strict=True):
            if limit.kind is _LEASES:
                if amount < 0:
                    self._released.append((limit, lease))
            elif amount:
                before = owed.get(limit.key)
                if before is None and len(owed) >= KEYS_MAX:
                    self.dropped += 1
                    continue
                owed[limit.key] = (limit, amount + (0 if before is None else before[1]), at_ms)

    def pay(self) -> Iterator[Gift]:
        """All that is owed, once; this process's own counts start anew."""
        owed, self._owed = list(self._owed.values()), {}
        for start in range(0, len(owed), _GIFT_LIMITS):
            part = owed[start : start + _GIFT_LIMITS]
            yield Gift([one[0] for one in part], [one[1] for one in part], "", part[-1][2])
        while self._released:
            limit, lease = self._released.popleft()
            yield Gift((limit,), (-1,), lease, 0)
        self.store.forget()

    def renewals(self) -> Iterator[Gift]:
        """All leases that are held."""
        for lease, limits in list(self.held.items()):
            yield Gift(limits, (1,) * len(limits), lease, 0)
