"""The face of limits towards the pipeline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmproxy.core.identity import Identity
from llmproxy.core.limits import Kind, Limit, LimitStore, Pending, Quota, Taken, Tier
from llmproxy.policy.limits.answers import duration
from llmproxy.policy.limits.estimate import Estimator
from llmproxy.policy.limits.overrides import overridden, override_text
from llmproxy.policy.limits.plan import Plan, make_plan
from llmproxy.policy.limits.usage import UsageTable, usage_view
from llmproxy.policy.limits.verdict import Price, Reservation, Verdict, amounts_of, cost_of

_PLANS_MAX = 5000
_FREE: Price = (0.0, 0.0)
_ANY = "*"


class Limiter:
    """Checks, reserves, settles. Coroutines await nothing but signals (`core.step`), and with the memory store nothing
    at all. `now` is monotonic seconds; `unix_offset_s` added to it is Unix time, which budgets need.

    ```python
    verdict = await limiter.check_request(identity, model, now)          # before the cache
    try:
        if not verdict.ok:
            raise verdict.error()                                        # 429 with Retry-After and x-ratelimit-*
        ...                                                              # a cache hit: answer it, nothing else to do
        reservation = await limiter.reserve_tokens(verdict, now, prompt_bytes=n, max_tokens=most)
        try:
            if not reservation.ok:
                raise reservation.error()
            head += verdict.headers(reservation)
            ...                                                          # relay
            reservation.settle(prompt, completion, limiter.unix_ms(now)) # as the engine says, or counted from chunks
        finally:
            reservation.refund(limiter.unix_ms(now))                     # does nothing after settle
    finally:
        verdict.release(limiter.unix_ms(now))
    ```

    A request cancelled while it waits for either needs no more than this: what the store grants afterwards, it takes
    back itself. A stream that was cut short is settled with what it had, not refunded. Where no cache lies between,
    `admit` asks for both in one round trip.
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
        self.verdicts: Counter[tuple[str, str]] = Counter()
        """By tier and what became of it: `passed`, or what was short (`requests`, `tokens`, `money`, `concurrency`,
        `store`)."""
        self.tokens: Counter[tuple[str, str]] = Counter()
        """By tier and what was done with them: `reserved`."""
        self._name = name
        self._unix_offset_s = unix_offset_s
        self._leases = 0
        self.configure(tiers, prices or {})

    def configure(self, tiers: Mapping[str, Tier], prices: Mapping[str, Price]) -> None:
        """Other quotas from now on. Buckets keep what is in them, as far as it fits."""
        self._tiers = tiers
        self._prices = prices
        self._forget_plans()

    def unix_ms(self, now: float) -> int:
        """Monotonic seconds as the milliseconds that stores count in."""
        return int((now + self._unix_offset_s) * 1000)

    # -- the request's side ----------------------------------------------------------------------------------------

    async def check_request(self, identity: Identity, model: str | None, now: float) -> Verdict:
        """One request and one place. Tokens are looked at, for the headers."""
        plan = self._plan(identity, model)
        return await self._check(identity, model, plan, plan.first, plan.first_amounts, now)

    async def reserve_tokens(
        self,
        verdict: Verdict,
        now: float,
        *,
        prompt_tokens: int | None = None,
        prompt_bytes: int = 0,
        max_tokens: int | None = None,
    ) -> Reservation:
        """The tokens that it will take: the prompt's, known or estimated from its bytes, and the answer's, learned and
        no more than `max_tokens` (of all choices together)."""
        prompt, completion, price = self._estimate(verdict, prompt_tokens, prompt_bytes, max_tokens)
        limits = verdict.plan.tokens
        amounts = amounts_of(limits, prompt + completion, cost_of(price, prompt, completion))
        taken = await self._take(limits, amounts, "", self.unix_ms(now)) if limits else Taken(self.unix_ms(now))
        return self._reservation(verdict, limits, amounts, taken, price, prompt, completion, prompt_bytes)

    async def admit(
        self,
        identity: Identity,
        model: str | None,
        now: float,
        *,
        prompt_tokens: int | None = None,
        prompt_bytes: int = 0,
        max_tokens: int | None = None,
    ) -> tuple[Verdict, Reservation]:
        """`check_request` and `reserve_tokens` in one, where nothing lies between: all of it or nothing. Raise the
        verdict's error when it is not `ok`; the reservation then is neither, and holds nothing."""
        plan = self._plan(identity, model)
        prompt, completion, price = self._estimate_for(identity, model, prompt_tokens, prompt_bytes, max_tokens)
        amounts = amounts_of(plan.tokens, prompt + completion, cost_of(price, prompt, completion))
        requests = plan.looked_at
        verdict = await self._check(identity, model, plan, plan.all, [*plan.first_amounts[:requests], *amounts], now)
        return verdict, self._reservation(
            verdict, plan.tokens, amounts, verdict.taken, price, prompt, completion, prompt_bytes, told=verdict.asked
        )

    # -- the admin's side ------------------------------------------------------------------------------------------

    async def override(self, tenant: str, values: Mapping[str, Any] | None) -> None:
        """Another quota for `tenant` than its tier's: numbers by the names of `core.limits.Quota` (costs in money, not
        in millionths), None for no limit; None altogether to drop it. Raises ValueError for what is no quota and
        ConnectionError when the store is out of reach. Awaits the store: for asyncio, not for a request."""
        await self.store.set_override(tenant, None if values is None else override_text(values))

    async def standing(self, identity: Identity, model: str | None, now: float) -> dict[str, Any]:
        """What a tenant (or a key) used and has left, for `GET /admin/tenants/{t}`. Takes nothing."""
        plan = self._plan(identity, model)
        taken = await self._take(plan.all, (0,) * len(plan.all), "", self.unix_ms(now))
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
                for limit, remaining, reset_ms in zip(plan.all, taken.remaining, taken.reset_ms, strict=False)
            ],
        }

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _check(
        self,
        identity: Identity,
        model: str | None,
        plan: Plan,
        limits: Sequence[Limit],
        amounts: Sequence[int],
        now: float,
    ) -> Verdict:
        now_ms = self.unix_ms(now)
        lease = ""
        if plan.has_leases:
            self._leases += 1
            lease = f"{self._name}.{self._leases:x}"
        taken = await self._take(limits, amounts, lease, now_ms) if limits else Taken(now_ms)
        usage = self.usage.of(identity.tenant, identity.tier)
        verdict = Verdict(self.store, usage, identity, model, plan, limits, taken, lease)
        self.verdicts[identity.tier, verdict.reason] += 1
        if taken.ok:
            usage.passed += 1
            usage.in_flight += 1
        else:
            usage.refused += 1
        return verdict

    async def _take(self, limits: Sequence[Limit], amounts: Sequence[int], lease: str, now_ms: int) -> Taken:
        taken = self.store.take(limits, amounts, lease, now_ms)
        if isinstance(taken, Taken):
            return taken
        return await self._answer(taken)

    async def _answer(self, pending: Pending) -> Taken:
        try:
            return await pending
        except BaseException:
            pending.abandoned = True
            raise

    def _reservation(
        self,
        verdict: Verdict,
        limits: Sequence[Limit],
        amounts: Sequence[int],
        taken: Taken,
        price: Price,
        prompt: int,
        completion: int,
        prompt_bytes: int,
        *,
        told: Sequence[Limit] | None = None,
    ) -> Reservation:
        """`told`: the verdict's own answer, which is counted already."""
        tier, usage = verdict.identity.tier, verdict.usage
        reservation = Reservation(
            self.store,
            usage,
            self.estimator,
            verdict,
            limits,
            amounts,
            taken,
            price,
            prompt=prompt,
            completion=completion,
            prompt_bytes=prompt_bytes,
            told=told,
        )
        if taken.ok:
            self.tokens[tier, "reserved"] += prompt + completion
        elif told is None:
            self.verdicts[tier, reservation.reason] += 1
            usage.refused += 1
        return reservation

    def _estimate(
        self, verdict: Verdict, prompt_tokens: int | None, prompt_bytes: int, max_tokens: int | None
    ) -> tuple[int, int, Price]:
        return self._estimate_for(verdict.identity, verdict.model, prompt_tokens, prompt_bytes, max_tokens)

    def _estimate_for(
        self,
        identity: Identity,
        model: str | None,
        prompt_tokens: int | None,
        prompt_bytes: int,
        max_tokens: int | None,
    ) -> tuple[int, int, Price]:
        estimator, tenant = self.estimator, identity.tenant
        prompt = estimator.prompt_tokens(tenant, model, prompt_bytes) if prompt_tokens is None else prompt_tokens
        prices = self._prices
        price = (prices.get(model or "") or prices.get(_ANY, _FREE)) if prices else _FREE
        return prompt, estimator.output_tokens(tenant, model, max_tokens), price

    def _plan(self, identity: Identity, model: str | None) -> Plan:
        if self.store.overrides_version != self._overrides_version:
            self._forget_plans()
        tier = self._tiers.get(identity.tier)
        if model is not None and (tier is None or tier.models is None or model not in tier.models):
            model = None
        key = (identity.tenant, identity.tier, identity.key_name, model)
        plan = self._plans.get(key)
        if plan is None or plan.key_quota is not identity.limits:
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            plan = self._plans[key] = make_plan(identity, *self._quota_of(identity, tier), model)
        return plan

    def _quota_of(self, identity: Identity, tier: Tier | None) -> tuple[Tier, Quota | None]:
        tier = tier if tier is not None else Tier(identity.tier)
        text = self.store.overrides().get(identity.tenant)
        return tier, None if text is None else overridden(tier.quota, text)

    def _forget_plans(self) -> None:
        self._plans: dict[tuple[str, str, str, str | None], Plan] = {}
        self._overrides_version = self.store.overrides_version
