"""The face of limits towards the pipeline."""

from collections.abc import Mapping
from typing import Any

from llmproxy.core.identity import Identity
from llmproxy.core.limits import Kind, LimitStore, Taken, Tier
from llmproxy.policy.limits.answers import duration
from llmproxy.policy.limits.charge import Charge, Price
from llmproxy.policy.limits.estimate import Estimator
from llmproxy.policy.limits.overrides import overridden, override_text
from llmproxy.policy.limits.plan import Limits, Plan, Tally, limits_of
from llmproxy.policy.limits.usage import UsageTable, usage_view

_PLANS_MAX = 5000
_FREE: Price = (0.0, 0.0)
_ANY = "*"


class Limiter:
    """Checks, reserves, settles. Nothing here waits: a charge that a store does not answer at once is `pending`. `now`
    is monotonic seconds; `unix_offset_s` added to it is Unix time, which budgets need.

    ```python
    charge = limiter.check_request(identity, model, now)                 # before the cache
    try:
        if charge.pending is not None:
            await charge.answer()
        if not charge.ok:
            raise charge.error()                                         # 429 with Retry-After and x-ratelimit-*
        ...                                                              # a cache hit: answer it, nothing else to do
        limiter.reserve_tokens(charge, model, now, prompt_bytes=n, max_tokens=most)
        ...                                                              # pending? ok? as above
        head += charge.headers()
        ...                                                              # relay
        charge.settle(prompt, completion)                                # as the engine says, or counted from chunks
    finally:
        charge.close(limiter.unix_ms(now))                               # what was not settled was not used
    ```

    A request cancelled while it is pending needs no more than this: what the store grants afterwards, it takes back
    itself. A stream that was cut short is settled with what it had. Where no cache lies between, `admit` asks for both
    in one round trip.
    """

    def __init__(
        self,
        store: LimitStore,
        tiers: Mapping[str, Tier],
        *,
        name: str,
        unix_offset_s: float = 0.0,
        prices: Mapping[str, Price] | None = None,
        estimator: Estimator | None = None,
    ) -> None:
        self.store = store
        self.estimator = estimator if estimator is not None else Estimator()
        self.usage = UsageTable()
        self._tallies: dict[str, Tally] = {}
        self._name = name
        self._unix_offset_s = unix_offset_s
        self._leases = 0
        self.configure(tiers, prices or {})

    @property
    def verdicts(self) -> dict[tuple[str, str], int]:
        """By tier and what became of a request: `passed`, or what was short."""
        found: dict[tuple[str, str], int] = {}
        for tier, tally in self._tallies.items():
            if tally.passed:
                found[tier, "passed"] = tally.passed
            for reason, count in tally.refused.items():
                found[tier, reason] = count
        return found

    def configure(self, tiers: Mapping[str, Tier], prices: Mapping[str, Price]) -> None:
        """Other quotas from now on. Buckets keep what is in them, as far as it fits."""
        self._tiers = tiers
        self._prices = prices
        self.named = frozenset(prices).union(*(tier.models or () for tier in tiers.values()))
        """Models that have limits or prices of their own."""
        self._forget_plans()

    def unix_ms(self, now: float) -> int:
        """Monotonic seconds as the milliseconds that stores count in."""
        return int((now + self._unix_offset_s) * 1000)

    # -- the request's side ----------------------------------------------------------------------------------------

    def check_request(self, identity: Identity, model: str | None, now: float) -> Charge:
        """One request and one place. Tokens are looked at, for the headers."""
        plan = self._plan(identity, model)
        charge = Charge(self.store, plan, self._lease(plan))
        charge.ask(plan.first, plan.first_amounts, self.unix_ms(now), reserves=False)
        return charge

    def reserve_tokens(
        self,
        charge: Charge,
        model: str | None,
        now: float,
        *,
        prompt_tokens: int | None = None,
        prompt_bytes: int = 0,
        max_tokens: int | None = None,
    ) -> None:
        """The tokens that it will take: the prompt's, known or estimated from its bytes, and the answer's, learned and
        no more than `max_tokens` (of all choices together)."""
        amounts = self._estimate(charge, charge.plan, model, prompt_tokens, prompt_bytes, max_tokens)
        charge.ask(charge.plan.tokens, amounts, self.unix_ms(now), reserves=True)

    def admit(
        self,
        identity: Identity,
        model: str | None,
        now: float,
        *,
        prompt_tokens: int | None = None,
        prompt_bytes: int = 0,
        max_tokens: int | None = None,
    ) -> Charge:
        """`check_request` and `reserve_tokens` in one, where nothing lies between: all of it or nothing."""
        plan = self._plan(identity, model)
        charge = Charge(self.store, plan, self._lease(plan))
        amounts = self._estimate(charge, plan, model, prompt_tokens, prompt_bytes, max_tokens)
        charge.ask(plan.all, [*plan.ones, *amounts], self.unix_ms(now), reserves=True)
        return charge

    # -- the admin's side ------------------------------------------------------------------------------------------

    async def override(self, tenant: str, values: Mapping[str, Any] | None) -> None:
        """Another quota for `tenant` than its tier's: numbers by the names of `core.limits.Quota` (costs in money, not
        in millionths), None for no limit; None altogether to drop it. Raises ValueError for what is no quota and
        ConnectionError when the store is out of reach. Awaits the store: for asyncio, not for a request."""
        await self.store.set_override(tenant, None if values is None else override_text(values))

    async def standing(self, identity: Identity, model: str | None, now: float) -> dict[str, Any]:
        """What a tenant (or a key) used and has left, for `GET /admin/tenants/{t}`. Takes nothing."""
        limits = self._limits(identity, model)
        every = (*limits[0], *limits[1])
        asked = Taken(0) if not every else self.store.take(every, (0,) * len(every), "", self.unix_ms(now))
        taken = asked if isinstance(asked, Taken) else await asked
        usage = self.usage.get(identity.tenant)
        return {
            "tenant": identity.tenant,
            "override": self.store.overrides().get(identity.tenant),
            "usage": None if usage is None else usage_view(usage),
            "limits": [
                {
                    "unit": limit.unit.value,
                    "scope": limit.scope.value,
                    "kind": limit.kind.name.lower(),
                    "limit": limit.burst if limit.kind is Kind.BUCKET else limit.size,
                    "remaining": remaining,
                    "resets_in": duration(reset_ms),
                }
                for limit, remaining, reset_ms in zip(every, taken.remaining, taken.reset_ms, strict=False)
            ],
        }

    # -- inside ----------------------------------------------------------------------------------------------------

    def _lease(self, plan: Plan) -> str:
        if not plan.leases:
            return ""
        self._leases += 1
        return f"{self._name}.{self._leases}"

    def _estimate(
        self,
        charge: Charge,
        plan: Plan,
        model: str | None,
        prompt_tokens: int | None,
        prompt_bytes: int,
        max_tokens: int | None,
    ) -> list[int]:
        if prompt_tokens is None:
            prompt_tokens = plan.lengths.prompt_tokens(prompt_bytes)
        prices = self._prices
        price = (prices.get(model or "") or prices.get(_ANY, _FREE)) if prices else _FREE
        return charge.estimate(price, prompt_tokens, plan.lengths.output_tokens(max_tokens), prompt_bytes)

    def _plan(self, identity: Identity, model: str | None) -> Plan:
        if self.store.overrides_version != self._overrides_version:
            self._forget_plans()
        plan = self._plans.get((identity.tenant, identity.tier, identity.key_name, model))
        if (
            plan is None
            or (plan.key_quota is not identity.limits and plan.key_quota != identity.limits)
            or plan.usage.forgotten
            or plan.lengths.forgotten
        ):
            plan = self._new_plan(identity, model)
        return plan

    def _new_plan(self, identity: Identity, model: str | None) -> Plan:
        if len(self._plans) >= _PLANS_MAX:
            self._plans.clear()
        tally = self._tallies.get(identity.tier)
        if tally is None:
            tally = self._tallies[identity.tier] = Tally()
        requests, tokens = self._limits(identity, model)
        usage = self.usage.of(identity.tenant, identity.tier)
        lengths = self.estimator.of(identity.tenant, model or "")
        plan = Plan(requests, tokens, identity.limits, usage, lengths, tally)
        self._plans[identity.tenant, identity.tier, identity.key_name, model] = plan
        return plan

    def _limits(self, identity: Identity, model: str | None) -> Limits:
        tier = self._tiers.get(identity.tier)
        if tier is None:
            tier = Tier(identity.tier)
        text = self.store.overrides().get(identity.tenant)
        return limits_of(identity, tier, None if text is None else overridden(tier.quota, text), model)

    def _forget_plans(self) -> None:
        self._plans: dict[tuple[str, str, str, str | None], Plan] = {}
        self._overrides_version = self.store.overrides_version
