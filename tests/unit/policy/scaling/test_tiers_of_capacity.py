"""Which tier of capacity is added, and which goes."""

from dataclasses import replace
from typing import Any

import pytest

from llmproxy.policy.scaling.base import Demand, Rates, Signals, TierState, Wanted
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.demand import DemandLaw, DemandOptions
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser
from llmproxy.policy.scaling.tiers import Tier, Tiers, with_tiers

SMALL, BIG = Tier("small", price_per_hour=1.0), Tier("big", worth=4.0, price_per_hour=3.5)
LONG = Rates(requests_per_s=0.5)


class Says:
    options_type = object

    def __init__(self, replicas: int, *, for_memory: bool = False) -> None:
        self.wanted = Wanted(replicas, "a test says so", "says", for_memory=for_memory)

    def want(self, signals: Signals, now: float) -> Wanted | None:
        return self.wanted


def decider(policy: Any, limits: Limits | None = None, tiers: tuple[Tier, ...] = (SMALL, BIG)) -> Decider:
    behavior = Behavior(Direction(), Direction())
    return Decider([policy], Stabiliser(behavior), Guardrails(limits or Limits(0, 20)), Tiers(tiers))


def signals(
    now: float = 0.0,
    small: int = 0,
    big: int = 0,
    *,
    waiting: int = 0,
    long: Rates | None = None,
    tiers: tuple[Tier, ...] = (SMALL, BIG),
    sustainable: Rates | None = None,
    **more: Any,
) -> Signals:
    states = (
        TierState(tiers[0].name, ready=small),
        TierState(tiers[1].name, ready=big, waiting=waiting, demand=long or Rates()),
    )
    bare = Signals(now=now, ready=small + big, sustainable=sustainable or Rates(), **more)
    return with_tiers(bare, tiers, states, 0.0)


def test_the_first_tier_is_added_where_nothing_asks_for_another() -> None:
    assert dict(decider(Says(3)).decide(signals(small=1), 0.0).tiers) == {"small": 3, "big": 0}


def test_a_long_prompt_that_waits_brings_a_big_one_beside_what_is_there() -> None:
    decision = decider(Says(1)).decide(signals(small=1, waiting=1), 0.0)
    assert dict(decision.tiers) == {"small": 1, "big": 1}
    assert decision.replicas == 2
    assert "1 big for prompts that fit nothing smaller" in decision.reason


def test_at_zero_it_brings_the_big_one_alone() -> None:
    assert dict(decider(Says(1)).decide(signals(waiting=1), 0.0).tiers) == {"small": 0, "big": 1}


def test_it_stays_while_long_prompts_come_and_for_a_while_after() -> None:
    one = decider(Says(1))
    one.decide(signals(small=1, waiting=1), 0.0)
    decision = one.decide(signals(10.0, small=1, big=1, long=LONG), 10.0)
    assert dict(decision.tiers) == {"small": 0, "big": 1}, "the big one serves the short prompts too"
    assert dict(one.decide(signals(200.0, big=1), 200.0).tiers) == {"small": 0, "big": 1}
    assert dict(one.decide(signals(600.0, big=1), 600.0).tiers) == {"small": 0, "big": 1}, "who knows what 1 needs?"


def test_a_big_one_that_nobody_needs_gives_way_to_a_small_one() -> None:
    one = decider(DemandLaw(DemandOptions()))
    known = Rates(requests_per_s=2.0)
    for at in range(0, 600, 5):
        little = Demand(last_60s=Rates(requests_per_s=0.1), last_10s=Rates(requests_per_s=0.1))
        now = float(at)
        found = one.decide(signals(now, big=1, sustainable=known, demand=little), now)
    assert dict(found.tiers) == {"small": 1, "big": 0}
    assert "a small does in the place of a big" in found.reason
    much = Demand(last_60s=Rates(requests_per_s=5.0), last_10s=Rates(requests_per_s=5.0))
    found = one.decide(signals(600.0, big=1, sustainable=known, demand=much), 600.0)
    assert dict(found.tiers) == {"small": 0, "big": 1}


def test_as_many_as_their_demand_needs() -> None:
    known = Rates(requests_per_s=2.0, prefill_tokens_per_s=1000.0)
    long = Rates(requests_per_s=1.0, prefill_tokens_per_s=10_000.0)
    found = decider(Says(1)).decide(signals(small=1, long=long, sustainable=known), 0.0)
    # 10,000 tokens a second over 4,000 that a big one computes, at 85 %: 2.94.
    assert dict(found.tiers) == {"small": 1, "big": 3}


def test_what_is_short_of_memory_gets_the_one_worth_most_and_fewer_of_it() -> None:
    one = decider(Says(6, for_memory=True))
    decision = one.decide(signals(small=2), 0.0)
    assert dict(decision.tiers) == {"small": 2, "big": 1}, "4 more are 1 big"
    law = DemandLaw(DemandOptions())
    full = law.want(signals(small=2, kv_usage=0.99), 0.0)
    assert full is not None
    assert full.for_memory
    requests = law.want(signals(small=2, kv_usage=0.1), 1.0)
    assert requests is not None


def test_the_mean_replica_sustains_what_the_mean_is_worth() -> None:
    found = signals(small=1, big=1, sustainable=Rates(requests_per_s=2.0))
    assert found.sustainable.requests_per_s == 5.0


def test_a_base_on_demand_and_the_rest_on_the_spot_market() -> None:
    tiers = (Tier("steady", max=2, price_per_hour=1.0), Tier("spot", price_per_hour=0.3))
    up = decider(Says(5), tiers=tiers)
    assert dict(up.decide(signals(tiers=tiers), 0.0).tiers) == {"steady": 2, "spot": 3}
    down = decider(Says(2), tiers=tiers)
    assert dict(down.decide(signals(small=2, big=3, tiers=tiers), 0.0).tiers) == {"steady": 2, "spot": 0}


def test_without_room_one_makes_place_for_the_big_one() -> None:
    decision = decider(Says(3), Limits(0, 3)).decide(signals(small=3, waiting=2), 0.0)
    assert dict(decision.tiers) == {"small": 2, "big": 1}
    assert "a big in the place of a small" in decision.limits


def test_while_paused_nobody_makes_place() -> None:
    one = decider(Says(3), Limits(0, 3))
    one.guardrails.paused = True
    assert dict(one.decide(signals(small=3, waiting=2), 0.0).tiers) == {"small": 3, "big": 0}


@pytest.mark.parametrize(
    ("per_hour", "expected"), [(10.0, (3, 1)), (6.0, (2, 1)), (3.5, (0, 1)), (3.0, (3, 0)), (0.0, (0, 0))]
)
def test_the_dearer_one_only_where_the_budget_pays(per_hour: float, expected: tuple[int, int]) -> None:
    limits = Limits(0, 20, budget=Budget(1.0, per_hour=per_hour))
    decision = decider(Says(3), limits).decide(signals(small=3, waiting=1, unix_s=0.0), 0.0)
    assert tuple(dict(decision.tiers).values()) == expected
    assert decision.replicas == sum(expected)


def avoiding(tier: str, found: Signals) -> Signals:
    return replace(found, tiers=tuple(replace(one, avoided=one.name == tier) for one in found.tiers))


def test_a_tier_whose_starts_fail_comes_last() -> None:
    decision = decider(Says(3)).decide(avoiding("small", signals(small=1)), 0.0)
    assert dict(decision.tiers) == {"small": 1, "big": 1}, "one is worth two small ones, and more"
    assert "starts of small fail" in decision.reason
    full = (SMALL, Tier("big", worth=1.0, max=1))
    decision = decider(Says(3), tiers=full).decide(avoiding("small", signals(small=1, tiers=full)), 0.0)
    assert dict(decision.tiers) == {"small": 2, "big": 1}, "what the others have no room for"


def test_a_larger_one_does_for_long_prompts_whose_own_tier_fails() -> None:
    tiers = (SMALL, Tier("middle", worth=2.0), Tier("large", worth=8.0))
    states = (
        TierState("small", ready=1),
        TierState("middle", waiting=3, avoided=True),
        TierState("large"),
    )
    found = with_tiers(Signals(now=0.0, ready=1), tiers, states, 0.0)
    decision = decider(Says(1), tiers=tiers).decide(found, 0.0)
    assert dict(decision.tiers) == {"small": 1, "middle": 0, "large": 1}


def test_none_makes_place_for_one_that_will_not_come() -> None:
    full = Limits(0, 2)
    small = avoiding("big", signals(small=2, waiting=1))
    assert dict(decider(Says(2), full).decide(small, 0.0).tiers) == {"small": 2, "big": 0}


def test_big_ones_that_were_there_at_the_beginning_are_not_traded_before_anything_is_known() -> None:
    one = decider(DemandLaw(DemandOptions()))
    known, little = Rates(requests_per_s=2.0), Rates(requests_per_s=0.1)
    demand = Demand(last_60s=little, last_10s=little)
    one.found(signals(big=1, sustainable=known, demand=demand), 0.0)
    for at in range(0, 300, 5):
        now = float(at)
        found = one.decide(signals(now, big=1, sustainable=known, demand=demand), now)
        assert dict(found.tiers) == {"small": 0, "big": 1}, now
    assert dict(one.decide(signals(305.0, big=1, sustainable=known, demand=demand), 305.0).tiers) == {
        "small": 1,
        "big": 0,
    }
