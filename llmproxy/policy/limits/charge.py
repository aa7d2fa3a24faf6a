"""What a request asks of its limits: whether it passes, what it is charged, and what goes back when it is over."""

from collections.abc import Sequence
from typing import Final

from llmproxy.core.errors import ProxyError
from llmproxy.core.limits import Kind, Limit, LimitStore, Pending, Taken, Unit
from llmproxy.policy.limits.answers import header_lines, header_pairs, refusal, tightest
from llmproxy.policy.limits.plan import Plan
from llmproxy.policy.limits.usage import Usage

Price = tuple[float, float]
"""Of one prompt token and of one generated token, in millionths."""
# Compiled, a constant costs nothing, and a member of an enum a search for its name.
_MONEY: Final = Unit.MONEY
_BUCKET: Final = Kind.BUCKET


class Charge:
    """One request's. While it is `pending`, wait for `answer`. Unless `ok`, raise `error()`. `settle` it with what the
    request used, and `close` it when that is over, on every path, also while it is pending; doing either again does
    nothing. Closed without being settled, it pays no tokens."""

    __slots__ = (
        "_amounts",
        "_asked",
        "_closed",
        "_cost",
        "_first",
        "_lease",
        "_plan",
        "_price",
        "_prompt_bytes",
        "_reserved",
        "_reserves",
        "_settled",
        "_store",
        "_taken",
        "_tokens",
        "_usage",
        "completion",
        "pending",
        "prompt",
    )

    def __init__(self, store: LimitStore, plan: Plan, lease: str) -> None:
        self.pending: Pending | None = None
        self.prompt = 0
        """Tokens, as estimated."""
        self.completion = 0
        self._store = store
        self._plan = plan
        self._lease = lease
        # The last question, and what came of it; and of the first.
        self._asked: Sequence[Limit] = ()
        self._reserves = False
        self._taken: Taken | None = None
        self._first: Taken | None = None
        self._usage: Usage | None = None
        """Where it is counted as in flight."""
        # What of `plan.tokens` was asked for, and the answer that granted it.
        self._amounts: Sequence[int] = ()
        self._reserved: Taken | None = None
        self._price: Price = (0.0, 0.0)
        self._prompt_bytes = 0
        # What it used.
        self._settled = False
        self._tokens = 0
        self._cost = 0
        self._closed = False

    # -- asking ----------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The limits that it meets."""
        return self._plan

    def estimate(self, price: Price, prompt: int, completion: int, prompt_bytes: int) -> list[int]:
        """What it will take, as far as anybody knows, and so what to ask of `plan.tokens`."""
        self._price = price
        self.prompt = prompt
        self.completion = completion
        self._prompt_bytes = prompt_bytes
        amounts = amounts_of(self._plan.tokens, prompt + completion, cost_of(price, prompt, completion))
        self._amounts = amounts
        return amounts

    def ask(self, limits: Sequence[Limit], amounts: Sequence[int], now_ms: int, *, reserves: bool) -> None:
        """Ask the store. `reserves`: what is asked for ends with what `estimate` said."""
        self._asked = limits
        self._reserves = reserves
        if not limits:
            self._answered(Taken(now_ms))
            return
        taken = self._store.take(limits, amounts, self._lease if self._first is None else "", now_ms)
        if isinstance(taken, Taken):
            self._answered(taken)
        else:
            self.pending = taken

    async def answer(self) -> None:
        """Wait for the store."""
        assert self.pending is not None
        taken = await self.pending
        self.pending = None
        self._answered(taken)

    def _answered(self, taken: Taken) -> None:
        self._taken = taken
        is_first = self._first is None
        if is_first:
            self._first = taken
        if taken.denied >= 0 or taken.failed:
            self._plan.usage.refused += 1
            self._plan.tally.refused[self.reason] += 1
            return
        if self._reserves:
            self._reserved = taken
        if is_first:
            self._usage = usage = self._plan.usage
            usage.seen = usage.passed > 0
            usage.passed += 1
            usage.in_flight += 1
            self._plan.tally.passed += 1

    # -- what came of it -------------------------------------------------------------------------------------------

    @property
    def ok(self) -> bool:
        """Whether all that was asked for was granted."""
        return self._taken is not None and self._taken.ok

    @property
    def reason(self) -> str:
        """For counting: `passed`, `store`, or the unit that was short."""
        taken = self._taken
        if taken is None or taken.failed:
            return "store"
        return "passed" if taken.ok else self._asked[taken.denied].unit.value

    def headers(self) -> bytes:
        """`x-ratelimit-*` lines for the answer's head."""
        if self._first is None or self._taken is None:
            return b""
        requests = tightest(self._plan.first, self._first, Unit.REQUESTS)
        return header_lines(requests, tightest(self._asked, self._taken, Unit.TOKENS))

    def error(self) -> ProxyError:
        """Why it does not pass."""
        assert self._taken is not None
        return refusal(self._asked, self._taken, header_pairs(self.headers()))

    # -- the end ---------------------------------------------------------------------------------------------------

    def settle(self, prompt: int | None, completion: int | None) -> None:
        """It used so much. None is what nobody knows: the prompt's estimate then stands, and of an answer that was not
        even counted by its chunks the reservation."""
        if self._settled or self._reserved is None or self._closed:
            return
        self._settled = True
        usage, lengths = self._plan.usage, self._plan.lengths
        if completion is not None:
            known = prompt or 0
            lengths.learn(completion, known, self._prompt_bytes if known else 0)
        if prompt is None:
            prompt = self.prompt
        if completion is None:
            completion = self.completion
        usage.prompt_tokens += prompt
        usage.completion_tokens += completion
        self._tokens = prompt + completion
        self._cost = cost_of(self._price, prompt, completion)
        usage.cost_micro += self._cost

    def close(self, now_ms: int) -> None:
        """The request is over: its place is free, and what it reserved is what it used."""
        if self._closed:
            return
        self._closed = True
        if self.pending is not None:
            self.pending.abandoned = True
        first, reserved, plan, store = self._first, self._reserved, self._plan, self._store
        if self._usage is None or first is None:
            return
        self._usage.in_flight -= 1
        if reserved is first:
            if plan.kept:
                store.give(plan.kept, [*plan.released, *self._due()], self._lease, first, now_ms)
            return
        if plan.leases:
            store.give(plan.leases, plan.released, self._lease, first, now_ms)
        if reserved is not None and plan.tokens:
            store.give(plan.tokens, self._due(), "", reserved, now_ms)

    def _due(self) -> list[int]:
        """Of each of `plan.tokens`, how much more it used than was reserved."""
        limits, amounts = self._plan.tokens, self._amounts
        return [
            (self._cost if limits[position].unit is _MONEY else self._tokens) - amounts[position]
            for position in range(len(limits))
        ]


def cost_of(price: Price, prompt: int, completion: int) -> int:
    """In millionths, rounded up: many small requests are not free."""
    exact = price[0] * prompt + price[1] * completion
    whole = int(exact)
    return whole if whole == exact else whole + 1


def amounts_of(limits: Sequence[Limit], tokens: int, cost: int) -> list[int]:
    """What to ask for: of each limit in its unit, of a bucket no more than it can hold."""
    amounts: list[int] = []
    for limit in limits:
        if limit.unit is _MONEY:
            amounts.append(cost)
        elif limit.kind is _BUCKET and tokens > limit.burst:
            amounts.append(limit.burst)
        else:
            amounts.append(tokens)
    return amounts
