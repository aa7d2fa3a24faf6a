"""Who is asked for and is not listed: when that is a start that failed, and when it is not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llmproxy.control.actuators.base import Instance
from llmproxy.control.scaling.fleet import Stage
from llmproxy.policy.scaling.tiers import Tier
from tests.unit.control.scaling.test_pool_scaler import Scene, World

MARKETS = (Tier("spot", price_per_hour=1.0), Tier("demand", price_per_hour=3.0))


class Stopping(World):
    """Lists those that were told to stop for as long as `slowly`, and has no room for others beside them."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.slowly = True

    async def scale(
        self, count: int, *, leaving: Sequence[str] = (), fence: int = 0, tiers: Mapping[str, int] | None = None
    ) -> None:
        for id in leaving:
            self.running[id] = replace(self.running[id], stopping=True)
        if not self.slowly:
            self.running = {id: one for id, one in self.running.items() if not one.stopping}
        if not any(one.stopping for one in self.running.values()):
            await super().scale(count, fence=fence, tiers=tiers)


async def test_a_stop_that_takes_long_is_no_start_that_failed() -> None:
    world = Stopping(4)
    scene = Scene(world=world, tiers=MARKETS)
    scene.wish.replicas = 1
    await scene.rounds()
    assert scene.lives == {"serving": 1}
    scene.parts.lives.hung(scene.pool.backends[0])
    for _ in range(200):
        await scene.rounds(1)
        assert not scene.parts.backoff.is_avoided("spot", scene.clock())
    assert scene.lives == {"stopping": 1}
    world.slowly = False
    await scene.rounds(20)
    assert [(one.tier, one.stage) for one in scene.fleet.replicas.values()] == [("spot", Stage.SERVING)]


async def test_a_death_elsewhere_does_not_make_an_empty_tier_wait_anew() -> None:
    scene = Scene(tiers=MARKETS)
    scene.world.empty = {"spot"}
    scene.world.running["dear"] = Instance("dear", "http://127.0.0.1:9999", tier="demand")
    scene.wish.replicas = 2
    await scene.rounds(60)
    assert scene.fleet.count(Stage.SERVING, tier="demand") == 1
    scene.world.running.clear()
    await scene.rounds(45)
    assert scene.parts.backoff.is_avoided("spot", scene.clock())
