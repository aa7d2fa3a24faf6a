"""Limits as values, and the port behind which the store of buckets sits.

A `Quota` is what somebody may use; a `Limit` is one of its numbers with the key under which it is counted. A request
asks a `LimitStore` for some amount of several limits at once and gets all of it or nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

from llmproxy.core.step import Signal

MICRO = 1_000_000
"""Money is counted in millionths of whatever currency the prices are in."""
SIZE_MAX = 10**10
"""Largest rate, burst and number of places. Redis computes with doubles, exact to 2^53: room for debts of 14 bursts."""
BUDGET_MAX = 10**15
"""Largest budget, which is only added to."""


class Kind(IntEnum):
    """How a limit is counted. The numbers are part of what is said to Redis."""

    BUCKET = 0
    """Refilled continuously: `size` a minute, up to `burst`."""
    DAY = 1
    """At most `size` in a day (UTC)."""
    MONTH = 2
    """At most `size` in a calendar month (UTC)."""
    LEASES = 3
    """At most `size` at the same time."""


class Unit(Enum):
    """What is counted; the value is the word in messages and labels."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    MONEY = "money"
    CONCURRENCY = "concurrency"


class Scope(Enum):
    """Whose limit it is; the value is the word in messages and labels."""

    TENANT = "tenant"
    MODEL = "model"
    KEY = "key"
    IP = "ip"


@dataclass(frozen=True, slots=True)
class Quota:
    """What one tenant, key, address or model may use. None is no limit; bursts are by default one minute's quota.
    Money in millionths."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_burst: int | None = None
    tokens_burst: int | None = None
    concurrency: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_day: int | None = None
    cost_per_month: int | None = None


UNLIMITED = Quota()


@dataclass(frozen=True, slots=True)
class Tier:
    """What the tenants of a tier may use, each for itself: altogether, and of single models. `priority` is the word
    for admission."""

    name: str
    quota: Quota = UNLIMITED
    models: Mapping[str, Quota] | None = None
    priority: str = "normal"


@dataclass(frozen=True, slots=True)
class Limit:
    """One number. `key` is where it is counted; limits of one request have different keys."""

    key: str
    kind: Kind
    unit: Unit
    scope: Scope
    size: int
    burst: int = 0
    """Of a bucket."""


class Taken:
    """What became of asking. `denied` is the position of the limit that was in the way longest, or -1: then everything
    was taken, and otherwise nothing. `remaining` and `reset_ms` (until it is as new) are those of each limit after
    that. `at_ms` is when, by the store's clock. `local`: this process decided for itself. `uncounted`: it did not even
    count, because the store is out of reach; `failed`: and said no for that reason alone."""

    __slots__ = ("at_ms", "denied", "failed", "local", "remaining", "reset_ms", "uncounted", "wait_ms")

    def __init__(
        self,
        at_ms: int,
        remaining: Sequence[int] = (),
        reset_ms: Sequence[int] = (),
        *,
        denied: int = -1,
        wait_ms: int = 0,
        local: bool = False,
        uncounted: bool = False,
        failed: bool = False,
    ) -> None:
        self.at_ms = at_ms
        self.remaining = remaining
        self.reset_ms = reset_ms
        self.denied = denied
        self.wait_ms = wait_ms
        self.local = local
        self.uncounted = uncounted
        self.failed = failed

    @property
    def ok(self) -> bool:
        return self.denied < 0 and not self.failed


class Pending(Signal[Taken]):
    """An answer on its way. Whoever stops waiting for it sets `abandoned`, and what it brings is given back."""

    __slots__ = ("abandoned", "amounts", "lease", "limits", "now_ms")

    def __init__(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, now_ms: int) -> None:
        super().__init__()
        self.limits = limits
        self.amounts = amounts
        self.lease = lease
        self.now_ms = now_ms
        self.abandoned = False


class LimitStore(Protocol):
    """Where limits are counted: the one writer of the buckets. `now_ms` is Unix time in milliseconds, which a store
    with a clock of its own disregards."""

    def take(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, now_ms: int) -> Taken | Pending:
        """All of it or nothing. An amount of 0 only looks. More than a burst is asked for as a whole burst. `lease`
        names the holder of what is limited in concurrency."""

    def give(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, taken: Taken, now_ms: int) -> None:
        """Correct what was taken, without asking: more (positive) or back (negative; a lease is released by -1).
        Never waits, and is not lost when the store is out of reach for a while."""

    def overrides(self) -> Mapping[str, str]:
        """Texts by tenant, as this store last knew them, set by `set_override` here or elsewhere."""

    @property
    def overrides_version(self) -> int:
        """Changes when `overrides` may have."""

    async def set_override(self, tenant: str, text: str | None) -> None:
        """Keep a text for `tenant`, or (None) drop it. Raises `ConnectionError` when the store is out of reach."""

    async def close(self) -> None: ...
