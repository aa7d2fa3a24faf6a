"""Whatever the signals say, tiers of capacity never make more replicas, nor dearer ones, than the guardrails allow."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.policy.scaling.base import Rates, Signals, TierState, Wanted
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser
from llmproxy.policy.scaling.tiers import Tier, Tiers, with_tiers

PRICES = st.sampled_from([0.25, 0.5, 1.0, 3.5])
TIERS = st.lists(
    st.builds(Tier, st.just("t"), st.sampled_from([0.5, 1.0, 2.5, 4.0]), st.none() | st.integers(1, 4), PRICES),
    min_size=1,
    max_size=3,
).map(lambda found: tuple(Tier(f"t{n}", one.worth, one.max, one.price_per_hour) for n, one in enumerate(found)))
STEP = st.tuples(
    st.integers(0, 30),
    st.booleans(),
    st.lists(st.integers(0, 5), min_size=3, max_size=3),
    st.floats(0, 50),
    st.booleans(),
    st.integers(0, 3),
)


class Says:
    options_type = object

    def __init__(self) -> None:
        self.wanted = Wanted(0, "", "says")

    def want(self, signals: Signals, now: float) -> Wanted | None:
        return self.wanted


@settings(max_examples=150, deadline=None)
@given(TIERS, st.integers(0, 3), st.integers(0, 12), st.none() | st.floats(0, 20), st.lists(STEP, max_size=12))
def test_never_more_nor_dearer(
    tiers: tuple[Tier, ...],
    least: int,
    more: int,
    per_hour: float | None,
    steps: list[tuple[int, bool, list[int], float, bool, int]],
) -> None:
    most = max(least + more, 1)
    cheapest = min(tier.price_per_hour for tier in tiers)
    limits = Limits(min(least, most), most, budget=None if per_hour is None else Budget(cheapest, per_hour))
    says = Says()
    decider = Decider([says], Stabiliser(Behavior(Direction(), Direction())), Guardrails(limits), Tiers(tiers))
    there = {tier.name: 0 for tier in tiers}
    for number, (wanted, for_memory, waiting, long, paused, resting) in enumerate(steps):
        now = 5.0 * number
        says.wanted = Wanted(wanted, "", "says", for_memory=for_memory)
        states = [
            TierState(
                name,
                ready=count,
                waiting=waits,
                demand=Rates(requests_per_s=long or None),
                avoided=(waits + wanted + place) % 3 == 0,
            )
            for place, ((name, count), waits) in enumerate(zip(there.items(), waiting, strict=False))
        ]
        actual = sum(there.values())
        resting_cost = resting * tiers[0].price_per_hour
        bare = Signals(now, unix_s=now, ready=actual, draining=resting, sustainable=Rates(requests_per_s=2.0))
        signals = with_tiers(bare, tiers, states, resting_cost)
        decider.guardrails.paused = paused
        decision = decider.decide(signals, now)
        counts = dict(decision.tiers)
        assert decision.replicas == sum(counts.values())
        assert all(count >= 0 for count in counts.values())
        if paused:
            assert counts == there
            continue
        assert decision.replicas <= most
        if per_hour is not None:
            cost = sum(tier.price_per_hour * counts[tier.name] for tier in tiers)
            before = sum(tier.price_per_hour * there[tier.name] for tier in tiers)
            # Nobody goes for the money of those that go already; nobody comes for it either.
            assert cost <= max(min(before, per_hour), per_hour - resting_cost, 0.0) + 1e-6
        for tier in tiers:
            if tier.max is not None:
                assert counts[tier.name] <= max(tier.max, there[tier.name])
        there = counts
