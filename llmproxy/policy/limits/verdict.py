"""What a request got: whether it passes, and what has to be given back when it is over."""

from collections.abc import Sequence

from llmproxy.core.errors import ProxyError
from llmproxy.core.identity import Identity
from llmproxy.core.limits import Kind, Limit, LimitStore, Taken, Unit
from llmproxy.policy.limits.answers import header_lines, header_pairs, refusal, tightest
from llmproxy.policy.limits.estimate import Estimator
from llmproxy.policy.limits.plan import Plan
from llmproxy.policy.limits.usage import Usage

Price = tuple[float, float]
"""Of one prompt token and of one generated token, in millionths."""


class Verdict:
    """Of `check_request` and `admit`. Unless `ok`, raise `error()`. `release` when the request is over, on every path;
    doing so twice, or for one that did not pass, does nothing."""

    __slots__ = ("_lease", "_limits", "_released", "_store", "_taken", "_usage", "identity", "model", "plan")

    def __init__(
        self,
        store: LimitStore,
        usage: Usage,
        identity: Identity,
        model: str | None,
        plan: Plan,
        limits: Sequence[Limit],
        taken: Taken,
        lease: str,
    ) -> None:
        self.identity = identity
        self.model = model
        self.plan = plan
        self._store = store
        self._usage = usage
        self._limits = limits
        self._taken = taken
        self._lease = lease
        self._released = not taken.ok

    @property
    def ok(self) -> bool:
        return self._taken.ok

    @property
    def reason(self) -> str:
        """For counting: `passed`, `store`, or the unit that was short."""
        return reason_of(self._limits, self._taken)

    @property
    def asked(self) -> Sequence[Limit]:
        """What was asked for, in the order in which `taken` tells of it."""
        return self._limits

    @property
    def taken(self) -> Taken:
        return self._taken

    @property
    def usage(self) -> Usage:
        """What the tenant's requests are counted in."""
        return self._usage

    def headers(self, tokens: "Reservation | None" = None) -> bytes:
        """`x-ratelimit-*` lines for the answer's head; what is left of the tokens is told by their reservation, where
        there is one."""
        limits, taken = self._limits, self._taken
        requests = tightest(limits, taken, Unit.REQUESTS)
        if tokens is not None:
            return header_lines(requests, tokens.shown())
        return header_lines(requests, tightest(limits, taken, Unit.TOKENS))

    def error(self) -> ProxyError:
        """Why it does not pass."""
        return refusal(self._limits, self._taken, header_pairs(self.headers()))

    def release(self, now_ms: int) -> None:
        """The request is over: its place is free. `now_ms` as `Limiter.unix_ms` gives it."""
        if self._released:
            return
        self._released = True
        self._usage.in_flight -= 1
        if self._lease:
            leases = [limit for limit in self._limits if limit.kind is Kind.LEASES]
            self._store.give(leases, (-1,) * len(leases), self._lease, self._taken, now_ms)


class Reservation:
    """Of `reserve_tokens` and `admit`. Unless `ok`, raise `error()`. When the request is over, `settle` with what it
    used, or `refund`; only the first of these does anything."""

    __slots__ = (
        "_amounts",
        "_done",
        "_estimator",
        "_limits",
        "_price",
        "_store",
        "_taken",
        "_told",
        "_usage",
        "_verdict",
        "completion",
        "prompt",
        "prompt_bytes",
    )

    def __init__(
        self,
        store: LimitStore,
        usage: Usage,
        estimator: Estimator,
        verdict: Verdict,
        limits: Sequence[Limit],
        amounts: Sequence[int],
        taken: Taken,
        price: Price,
        *,
        prompt: int,
        completion: int,
        prompt_bytes: int = 0,
        told: Sequence[Limit] | None = None,
    ) -> None:
        """`told`: what `taken` tells of, when that is more than `limits`."""
        self.prompt = prompt
        self.completion = completion
        self.prompt_bytes = prompt_bytes
        self._store = store
        self._usage = usage
        self._estimator = estimator
        self._verdict = verdict
        self._limits = limits
        self._told = limits if told is None else told
        self._amounts = amounts
        self._taken = taken
        self._price = price
        self._done = not taken.ok

    @property
    def ok(self) -> bool:
        return self._taken.ok

    @property
    def reason(self) -> str:
        """For counting: `passed`, `store`, or the unit that was short."""
        return reason_of(self._told, self._taken)

    def shown(self) -> tuple[int, int, int] | None:
        """The bucket of tokens that counts: its size, what is left, when it is as new in ms."""
        return tightest(self._told, self._taken, Unit.TOKENS)

    def error(self) -> ProxyError:
        """Why it does not pass."""
        return refusal(self._told, self._taken, header_pairs(self._verdict.headers(self)))

    def settle(self, prompt: int | None, completion: int | None, now_ms: int) -> None:
        """It used so much. None is what nobody knows: the prompt's estimate then stands, and of an answer that was not
        even counted by its chunks the reservation."""
        if self._done:
            return
        self._done = True
        verdict, usage = self._verdict, self._usage
        if completion is not None:
            known = prompt or 0
            tenant = verdict.identity.tenant
            self._estimator.learn(tenant, verdict.model, completion, known, self.prompt_bytes if known else 0)
        prompt = self.prompt if prompt is None else prompt
        completion = self.completion if completion is None else completion
        cost = cost_of(self._price, prompt, completion)
        usage.prompt_tokens += prompt
        usage.completion_tokens += completion
        usage.cost_micro += cost
        self._correct(prompt + completion, cost, now_ms)

    def refund(self, now_ms: int) -> None:
        """It used nothing: it never reached an engine, or was refused there."""
        if not self._done:
            self._done = True
            self._correct(0, 0, now_ms)

    def _correct(self, tokens: int, cost: int, now_ms: int) -> None:
        limits = self._limits
        if limits:
            amounts = [
                (cost if limit.unit is Unit.MONEY else tokens) - charged
                for limit, charged in zip(limits, self._amounts, strict=True)
            ]
            self._store.give(limits, amounts, "", self._taken, now_ms)


def reason_of(limits: Sequence[Limit], taken: Taken) -> str:
    if taken.ok:
        return "passed"
    return "store" if taken.failed else limits[taken.denied].unit.value


def cost_of(price: Price, prompt: int, completion: int) -> int:
    """In millionths, rounded up: many small requests are not free."""
    exact = price[0] * prompt + price[1] * completion
    whole = int(exact)
    return whole if whole == exact else whole + 1


def amounts_of(limits: Sequence[Limit], tokens: int, cost: int) -> list[int]:
    """What to ask for: of each limit in its unit, of a bucket no more than it can hold."""
    return [
        cost if limit.unit is Unit.MONEY else min(tokens, limit.burst) if limit.kind is Kind.BUCKET else tokens
        for limit in limits
    ]
