"""Taking ahead is an account like any other: whatever happens in whatever order, what passed was granted, and in the
end the store has lost what was used and nothing else."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.core.limits import Kind, Limit, Scope, Taken, Unit
from llmproxy.stores.memory import MemoryStore
from llmproxy.stores.redis_ahead import Ahead

T0 = 1_775_000_000_000
RPM = Limit("rpm", Kind.BUCKET, Unit.REQUESTS, Scope.TENANT, 1, 3_000)
DAY = Limit("day", Kind.DAY, Unit.TOKENS, Scope.TENANT, 300_000)
NOW = Limit("now", Kind.LEASES, Unit.CONCURRENCY, Scope.TENANT, 60)
LIMITS = (RPM, NOW, DAY)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 12), st.integers(1, 400)),
        st.tuples(st.just("end"), st.integers(0, 2), st.integers(1, 12), st.integers(-400, 400)),
        st.tuples(st.just("tick"), st.integers(0, 2), st.integers(1, 8), st.just(0)),
        st.tuples(st.just("close"), st.integers(0, 2), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=80,
)


class Proxy:
    def __init__(self, name, store):
        self.name, self.store, self.ahead, self.number = name, store, Ahead(), 0
        self.open = []
        self.requests = self.tokens = 0

    def ask(self, tokens, now):
        self.number += 1
        lease, amounts = f"{self.name}.{self.number}", (1, 1, tokens)
        taken = self.ahead.take(LIMITS, amounts, lease, now)
        if taken is None:
            taken = self.store.take(LIMITS, amounts, lease, now)
            self.ahead.asked(LIMITS, amounts, taken)
        if taken.ok:
            self.requests += 1
            self.open.append((lease, tokens, taken))

    def end(self, more, now):
        lease, tokens, taken = self.open.pop(0)
        more = max(more, -tokens)
        self.tokens += tokens + more
        self.give((DAY,), (more,), "", taken, now)
        self.give((NOW,), (-1,), lease, taken, now)

    def give(self, limits, amounts, lease, taken, now):
        name = self.ahead.name_of(lease)
        rest, rest_amounts = self.ahead.give(limits, amounts, name, taken.at_ms, 3)
        self.store.give(rest, rest_amounts, name, taken, now)

    def tick(self, now):
        advances, gifts = self.ahead.tick(3, now)
        for one in advances:
            assert one.amounts[0] >= 0
            assert self.ahead.answered(one, self.store.take(one.limits, one.amounts, "", now))
        self.said(gifts, now)

    def said(self, gifts, now):
        for gift in gifts:
            self.store.give(gift.limits, gift.amounts, gift.lease, Taken(gift.taken_at_ms), now)


@settings(deadline=None, max_examples=200)
@given(steps=steps)
def test_what_is_used_is_what_is_missing(steps):
    store, now = MemoryStore(), T0
    proxies = [Proxy(f"p{number}", store) for number in range(3)]
    for what, who, count, amount in steps:
        proxy = proxies[who]
        if what == "ask":
            for _ in range(count):
                proxy.ask(amount, now)
        elif what == "end":
            for _ in range(min(count, len(proxy.open))):
                proxy.end(amount, now)
        elif what == "tick":
            for _ in range(count):
                now += 20
                proxy.tick(now)
        else:
            proxy.said(proxy.ahead.close(), now)
        in_flight = sum(len(proxy.open) for proxy in proxies)
        assert in_flight <= NOW.size
        assert sum(proxy.requests for proxy in proxies) <= RPM.burst + (now - T0) / 60_000
        held = store.take((NOW,), (0,), "", now).remaining[0]
        spares = sum(len(one.spares) for proxy in proxies for one in proxy.ahead.accounts.values())
        assert held + in_flight + spares == NOW.size
    for proxy in proxies:
        while proxy.open:
            proxy.end(0, now)
        proxy.said(proxy.ahead.close(), now)
    requests = sum(proxy.requests for proxy in proxies)
    tokens = sum(proxy.tokens for proxy in proxies)
    remaining = store.take(LIMITS, (0, 0, 0), "", now).remaining
    assert remaining[1] == NOW.size
    assert DAY.size - remaining[2] == max(0, min(tokens, DAY.size))
    refilled = (now - T0) / 60_000
    assert requests - refilled - 1 <= RPM.burst - remaining[0] <= requests
