"""Which limits a request meets, and under which keys they are counted."""

from collections.abc import Iterator

from llmproxy.core.identity import Identity
from llmproxy.core.limits import Kind, Limit, Quota, Scope, Tier, Unit


class Plan:
    """The limits of all requests of one key for one model: `first` are met before the cache (requests, places, and the
    buckets of tokens, which are only looked at), `tokens` after it. Made once, and used by every such request."""

    __slots__ = ("all", "first", "first_amounts", "has_leases", "key_quota", "looked_at", "tokens")

    def __init__(self, requests: tuple[Limit, ...], tokens: tuple[Limit, ...], key_quota: Quota | None) -> None:
        buckets = tuple(limit for limit in tokens if limit.kind is Kind.BUCKET)
        self.first = requests + buckets
        self.first_amounts = (1,) * len(requests) + (0,) * len(buckets)
        self.looked_at = len(requests)
        self.tokens = tokens
        self.all = requests + tokens
        self.has_leases = any(limit.kind is Kind.LEASES for limit in requests)
        self.key_quota = key_quota
        """What it was made from, to notice a key that was changed."""


def make_plan(identity: Identity, tier: Tier, override: Quota | None, model: str | None) -> Plan:
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
    return Plan(requests, tokens, identity.limits)


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
