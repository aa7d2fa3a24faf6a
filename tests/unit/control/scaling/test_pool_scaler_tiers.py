"""The loop where a pool has tiers of capacity: which are added and let go, and what if one cannot be had."""

from llmproxy.control.scaling.fleet import Stage
from llmproxy.core.backend import Status
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser
from llmproxy.policy.scaling.tiers import Tier
from tests.unit.control.scaling.test_pool_scaler import Scene

TIERS = (Tier("small", price_per_hour=1.0), Tier("big", worth=4.0, price_per_hour=3.0))


def kinds(scene: Scene) -> dict[str, int]:
    return {tier: count for tier in ("small", "big") if (count := scene.fleet.count(Stage.SERVING, tier=tier))}


async def test_a_long_prompt_in_line_brings_a_big_replica_before_the_small_one_goes() -> None:
    scene = Scene(tiers=TIERS)
    scene.wish.replicas = 1
    await scene.rounds()
    assert kinds(scene) == {"small": 1}
    scene.pool.awaited["big"] = 1
    scene.world.hold = True
    await scene.rounds(1)
    assert scene.world.tiers == {"small": 1, "big": 1}
    await scene.rounds(1)
    assert scene.lives == {"serving": 1, "starting": 1}
    # One is wanted, and that is the big one: while it starts the small one serves.
    await scene.rounds(6)
    assert kinds(scene) == {"small": 1}
    scene.world.hold = False
    scene.up.set()
    await scene.rounds(6)
    assert kinds(scene) == {"big": 1}
    assert scene.pool.backends[0].spec.tier == "big"
    assert scene.pool.backends[0].spec.price_per_hour == 3.0


async def test_a_big_one_goes_when_the_small_one_that_does_serves() -> None:
    scene = Scene(tiers=TIERS)
    scene.wish.replicas, scene.wish.need = 1, 0.1
    scene.pool.awaited["big"] = 1
    await scene.rounds()
    assert kinds(scene) == {"big": 1}
    scene.pool.awaited["big"] = 0
    scene.world.hold = True
    await scene.rounds(320)
    assert scene.lives == {"serving": 1, "starting": 1}
    made = scene.world.made
    await scene.rounds(20)
    assert kinds(scene) == {"big": 1}, "while the small one starts"
    assert scene.world.made == made, "it is started once"
    scene.world.hold = False
    scene.up.set()
    await scene.rounds(6)
    assert kinds(scene) == {"small": 1}
    assert scene.lives == {"serving": 1}


async def test_where_there_is_no_room_a_small_one_makes_place() -> None:
    scene = Scene(tiers=TIERS, most=2)
    scene.wish.replicas = 2
    await scene.rounds()
    scene.pool.awaited["big"] = 1
    await scene.rounds(8)
    assert kinds(scene) == {"small": 1, "big": 1}


async def test_never_more_than_an_hour_pays_for_whatever_drains() -> None:
    scene = Scene(tiers=TIERS, most=8)
    scene.parts.most_per_hour = 4.0
    scene.wish.replicas = 4
    await scene.rounds()
    assert kinds(scene) == {"small": 4}
    for backend in scene.pool.backends:
        backend.load.enter()
    scene.pool.awaited["big"] = 1
    for _ in range(20):
        await scene.rounds(1)
        cost = sum(3.0 if one.tier == "big" else 1.0 for one in scene.world.running.values())
        assert cost <= 4.0
        for backend in scene.pool.backends:
            if backend.status is Status.DRAINING and backend.load.in_flight:
                backend.load.leave()


MARKETS = (Tier("spot", price_per_hour=1.0), Tier("demand", price_per_hour=3.0))


def there(scene: Scene) -> dict[str, int]:
    return {tier: count for tier in scene.fleet.tiers if (count := scene.fleet.count(Stage.SERVING, tier=tier))}


async def test_where_one_tier_cannot_be_had_another_serves_the_wish() -> None:
    scene = Scene(tiers=MARKETS)
    scene.world.empty, scene.world.admits_it = {"spot"}, True
    scene.wish.replicas = 2
    await scene.rounds(4)
    assert there(scene) == {"demand": 2}
    assert scene.parts.backoff.wait_s(scene.clock(), "demand") == 0
    # Later, when they have not failed for a while, they are asked for again.
    scene.world.empty = set()
    await scene.rounds(4, 30.0)
    scene.wish.replicas = 3
    await scene.rounds(4)
    assert there(scene) == {"spot": 1, "demand": 2}


async def test_what_is_never_listed_is_a_start_that_failed() -> None:
    scene = Scene(tiers=MARKETS)
    scene.world.empty = {"spot"}
    scene.wish.replicas = 2
    await scene.rounds(60)
    assert there(scene) == {}, "it may still come"
    await scene.rounds(40)
    assert there(scene) == {"demand": 2}
    assert scene.world.tiers == {"spot": 0, "demand": 2}, "and spot is not asked for beside them"


async def test_starts_that_die_hold_back_their_own_tier_alone() -> None:
    scene = Scene(tiers=MARKETS)
    scene.world.hold = True
    scene.wish.replicas = 1
    await scene.rounds(2)
    assert [one.tier for one in scene.fleet.at(Stage.STARTING)] == ["spot"]
    scene.world.running.clear()
    await scene.rounds(3)
    assert [one.tier for one in scene.fleet.at(Stage.STARTING)] == ["demand"]
    scene.world.hold = False
    scene.up.set()
    await scene.rounds(3)
    assert there(scene) == {"demand": 1}


async def test_what_nobody_else_has_room_for_is_asked_of_it_all_the_same() -> None:
    scene = Scene(tiers=(MARKETS[0], Tier("demand", price_per_hour=3.0, max=1)))
    scene.world.empty, scene.world.admits_it = {"spot"}, True
    scene.wish.replicas = 3
    await scene.rounds(20)
    assert there(scene) == {"demand": 1}
    assert scene.world.tiers == {"spot": 2, "demand": 1}
    made, calls = scene.world.made, len(scene.world.calls)
    await scene.rounds(60)
    assert scene.world.made == made
    assert len(scene.world.calls) - calls <= 6, "less and less often"
    scene.world.empty = set()
    await scene.rounds(10, 60.0)
    assert there(scene) == {"spot": 2, "demand": 1}


async def test_asking_again_for_what_does_not_come_is_no_further_change() -> None:
    scene = Scene(tiers=(MARKETS[0], Tier("demand", price_per_hour=3.0, max=1)))
    behavior = Behavior(Direction(), Direction(window_s=0.0))
    guardrails = Guardrails(Limits(0, 4, changes_per_hour=10))
    scene.parts.decider = Decider([scene.wish], Stabiliser(behavior), guardrails, scene.parts.decider.tiers)
    scene.world.empty, scene.world.admits_it = {"spot"}, True
    scene.wish.replicas = 3
    await scene.rounds(60)
    assert there(scene) == {"demand": 1}
    scene.world.empty = set()
    await scene.rounds(10, 60.0)
    assert there(scene) == {"spot": 2, "demand": 1}
