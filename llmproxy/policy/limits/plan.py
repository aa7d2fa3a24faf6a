"""Which limits a request meets, and under which keys they are counted."""

from collections import Counter
from collections.abc import Iterator

from llmproxy.core.identity import Identity
from llmproxy.core.limits import Kind, Limit, Quota, Scope, Tier, Unit
from llmproxy.policy.limits.estimate import Lengths
from llmproxy.policy.limits.usage import Usage


class Tally:
    """Of a tier's requests, how many passed, and how many did not for what was short (`requests`, `tokens`, `money`,
    `concurrency`, `store`)."""

    __slots__ = ("passed", "refused")

    def __init__(self) -> None:
        self.passed = 0
        self.refused: Counter[str] = Counter()


class Plan:
    """The limits of all requests of one key for one model: `first` are met before the cache (requests, places, and the
    buckets of tokens, which are only looked at), `tokens` after it, and `all` where there is none. Of these, `kept` are
    those that something goes back to: places (`leases`, by the amounts `released`) and tokens. Made once, and used by
    every such request, with what these are counted and estimated by."""

    __slots__ = (
        "all",
        "first",
        "first_amounts",
        "kept",
        "key_quota",
        "leases",
        "lengths",
        "ones",
        "released",
        "tally",
        "tokens",
        "usage",
    )

    def __init__(
        self,
        requests: tuple[Limit, ...],
        tokens: tuple[Limit, ...],
        key_quota: Quota | None,
        usage: Usage,
        lengths: Lengths,
        tally: Tally,
    ) -> None:
        self.usage = usage
        self.lengths = lengths
        self.tally = tally
        buckets = tuple(limit for limit in tokens if limit.kind is Kind.BUCKET)
        self.ones = (1,) * len(requests)
        self.first = requests + buckets
        self.first_amounts = self.ones + (0,) * len(buckets)
        self.tokens = tokens
        self.all = requests + tokens
        self.leases = tuple(limit for limit in requests if limit.kind is Kind.LEASES)
        self.released = (-1,) * len(self.leases)
        self.kept = self.leases + tokens
        self.key_quota = key_quota
        """What it was made from, to notice a key that was changed."""


Limits = tuple[tuple[Limit, ...], tuple[Limit, ...]]
"""Of requests and places, and of tokens."""


def limits_of(identity: Identity, tier: Tier, override: Quota | None, model: str | None) -> Limits:
    """The limits that `identity` meets when it asks for `model`."""
    scope = Scope.IP if identity.anonymous else Scope.TENANT
    tenant = _safe(identity.tenant)
    quotas = [(f"t:{tenant}", scope, tier.quota if override is None else override)]
    if model is not None and tier.models is not None and model in tier.models:
        quotas.append((f"m:{tenant}:{_safe(model)}", Scope.MODEL, tier.models[model]))
    if identity.limits is not None:
        quotas.append((f"k:{tenant}:{_safe(identity.key_name)}", Scope.KEY, identity.limits))
    requests = tuple(limit for prefix, scope, quota in quotas for limit in _of_requests(prefix, scope, quota))
    tokens = tuple(limit for prefix, scope, quota in quotas for limit in _of_tokens(prefix, scope, quota))
    return requests, tokens


def _of_requests(prefix: str, scope: Scope, quota: Quota) -> Iterator[Limit]:
    rate = quota.requests_per_minute
    if rate is not None:
        yield Limit(f"{prefix}:rpm", Kind.BUCKET, Unit.REQUESTS, scope, rate, quota.requests_burst or rate)
    if quota.concurrency is not None:
        yield Limit(f"{prefix}:now", Kind.LEASES, Unit.CONCURRENCY, scope, quota.concurrency)


def _of_tokens(prefix: str, scope: Scope, quota: Quota) -> Iterator[Limit]:
    rate = quota.tokens_per_minute
    if rate is not None:
        yield Limit(f"{prefix}:tpm", Kind.BUCKET, Unit.TOKENS, scope, rate, quota.tokens_burst or rate)
    for name, kind, unit, size in (
        ("tokens-day", Kind.DAY, Unit.TOKENS, quota.tokens_per_day),
        ("tokens-month", Kind.MONTH, Unit.TOKENS, quota.tokens_per_month),
        ("cost-day", Kind.DAY, Unit.MONEY, quota.cost_per_day),
        ("cost-month", Kind.MONTH, Unit.MONEY, quota.cost_per_month),
    ):
        if size is not None:
            yield Limit(f"{prefix}:{name}", kind, unit, scope, size)


def _safe(name: str) -> str:
    """`name` as one part of a key: no two different names, and no names and their parts, look the same."""
    return name.replace("%", "%25").replace(":", "%3A")
