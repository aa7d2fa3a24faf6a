"""The loop under a budget: whatever exists is paid for, the warm pool too, and nothing that does not."""

import random

import pytest

from llmproxy.control.actuators.base import Instance
from llmproxy.control.scaling.fleet import Stage
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.money import Budget, Spent
from llmproxy.policy.scaling.tiers import Tier
from tests.unit.control.scaling.test_pool_scaler import Scene

NOON_S = 1e9 + 1000.0
"""What the wall clock of a `Scene` says at its beginning."""


def under(
    *, most: int = 4, spent: float = 0.0, per_hour: float | None = None, per_month: float | None = None
) -> Guardrails:
    return Guardrails(Limits(0, most, budget=Budget(1.0, per_hour, per_month)), Spent(NOON_S, 0.0, spent))


@pytest.mark.parametrize("tiers", [(), (Tier("a", price_per_hour=1.0), Tier("b", price_per_hour=2.0))])
async def test_the_warm_pool_goes_too_when_the_months_money_is_spent(tiers: tuple[Tier, ...]) -> None:
    scene = Scene(warm=1, guardrails=under(per_month=1000.0, spent=100.0), price=1.0, tiers=tiers)
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 1}
    scene.parts.decider.guardrails = under(per_month=1000.0, spent=1000.0)
    await scene.rounds(6)
    assert scene.lives == {}
    assert scene.world.running == {}


@pytest.mark.parametrize("tiers", [(), (Tier("a", price_per_hour=1.0), Tier("b", price_per_hour=2.0))])
async def test_one_that_rests_serves_for_the_same_money(tiers: tuple[Tier, ...]) -> None:
    scene = Scene(warm=1, guardrails=under(per_hour=2.0), price=1.0, tiers=tiers)
    scene.parts.most_per_hour = 2.0
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 1}
    scene.wish.replicas = 2
    await scene.rounds(6)
    assert scene.lives == {"serving": 2}
    assert scene.world.made == 2


async def test_nobody_comes_for_the_money_of_one_that_has_not_ended_yet() -> None:
    scene = Scene(guardrails=under(per_hour=2.0), price=1.0)
    scene.world.running["old"] = Instance("old", "http://127.0.0.1:9000", stopping=True)
    scene.wish.replicas = 2
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "stopping": 1}
    del scene.world.running["old"]
    await scene.rounds(6)
    assert scene.lives == {"serving": 2}


async def test_what_exists_is_paid_for_until_it_is_gone_and_not_before_it_is_there() -> None:
    guardrails = under(per_month=1000.0)
    scene = Scene(guardrails=guardrails, price=1.0)
    await scene.rounds(2)
    begun = guardrails.spent
    scene.wish.replicas = 3
    scene.parts.backoff.failed(scene.clock())
    scene.parts.backoff.failed(scene.clock())
    assert scene.parts.backoff.wait_s(scene.clock()) > 1.0
    await scene.rounds(1, 1.0)
    assert scene.world.running == {}, "it waits after starts that failed"
    assert guardrails.spent is not None
    assert begun is not None
    assert guardrails.spent.month == begun.month == 0.0
    scene.wish.replicas = 0
    scene.world.running["old"] = Instance("old", "http://127.0.0.1:9000", stopping=True)
    await scene.rounds(10, 360.0)
    assert guardrails.spent.month == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(6))
async def test_no_input_gets_past_the_money_of_an_hour(seed: int) -> None:
    rng = random.Random(seed)
    scene = Scene(warm=rng.randrange(3), guardrails=under(per_hour=2.0, per_month=1e4), price=1.0)
    scene.parts.most_per_hour = 2.0
    for _ in range(60):
        scene.wish.replicas = rng.choice([None, 0, 1, 2, 3, 10**9])
        scene.paused = rng.random() < 0.2
        running = scene.world.running
        for id in list(running):
            if rng.random() < 0.1:
                running.pop(id)
            elif rng.random() < 0.1 and not scene.paused:
                running[id] = Instance(id, running[id].url, stopping=True)
        for backend in scene.pool.backends:
            if rng.random() < 0.3:
                backend.load.enter()
            elif backend.load.in_flight:
                backend.load.leave()
        if scene.pool.backends and rng.random() < 0.1:
            scene.parts.lives.hung(rng.choice(scene.pool.backends))
        await scene.rounds(1, rng.choice([0.1, 1.0, 40.0]))
        assert len(running) <= 2


@pytest.mark.parametrize("tiers", [(), (Tier("a", price_per_hour=1.0), Tier("b", price_per_hour=2.0))])
async def test_a_budget_that_shrinks_lets_go_of_what_is_beyond_it_and_of_no_more(tiers: tuple[Tier, ...]) -> None:
    scene = Scene(most=8, guardrails=under(most=8, per_hour=8.0), price=1.0, tiers=tiers)
    scene.parts.most_per_hour = 8.0
    scene.wish.replicas = 8
    await scene.rounds(10)
    assert scene.lives == {"serving": 8}
    for backend in scene.pool.backends:
        backend.load.enter()
    scene.parts.decider.guardrails = under(most=8, per_hour=6.0)
    scene.parts.most_per_hour = 6.0
    await scene.rounds(8, 15.0)
    assert scene.lives == {"serving": 6, "draining": 2}, "those that drain cost as long as they do, and nobody for it"
    for replica in scene.fleet.at(Stage.DRAINING):
        assert replica.backend is not None
        replica.backend.load.leave()
    await scene.rounds(4, 15.0)
    assert scene.lives == {"serving": 6}
    assert scene.world.made == 8


async def test_nobody_goes_because_others_take_long_to_end() -> None:
    scene = Scene(guardrails=under(per_hour=4.0), price=1.0)
    scene.parts.most_per_hour = 4.0
    scene.wish.replicas = 4
    await scene.rounds(8)
    first = scene.fleet.at(Stage.SERVING)[0].id
    scene.world.running[first] = Instance(first, scene.world.running[first].url, stopping=True)
    await scene.rounds(4, 15.0)
    assert scene.lives == {"serving": 3, "stopping": 1}, "no room for a fourth while that one costs"
    del scene.world.running[first]
    await scene.rounds(4, 15.0)
    assert scene.lives == {"serving": 4}
