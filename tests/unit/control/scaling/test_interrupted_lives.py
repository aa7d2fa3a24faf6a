"""Replicas whose way is crossed: the lead changes while one is warmed, one comes up while it is stopped, is roused
while it falls asleep, or cannot be stopped at all."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from llmproxy.config.model import PoolConfig
from llmproxy.control.actuators.base import ActuatorError, Instance
from llmproxy.control.scaling.fleet import Stage
from llmproxy.control.scaling.terms import Terms
from llmproxy.core.backend import BackendSpec
from llmproxy.policy.scaling.tiers import Tier
from tests.unit.control.scaling.test_following import Pair
from tests.unit.control.scaling.test_pool_scaler import Scene, World

MARKETS = (Tier("spot", price_per_hour=1.0), Tier("demand", price_per_hour=3.0))


async def for_ever(*unused: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("next_leader_waits", [False, True])
async def test_one_that_was_warmed_when_the_lead_was_lost_serves_with_the_next_leader(next_leader_waits: bool) -> None:
    pair = Pair()
    pair.leader.engines.warm = for_ever  # type: ignore[method-assign]
    pair.leader.parts.lives.terms = Terms(replace_after_s=1e6, prompts=({"prompt": "a"},))
    answers = asyncio.Event()

    async def later(spec: BackendSpec, settings: PoolConfig) -> None:
        await answers.wait()

    if next_leader_waits:
        pair.follower.engines.until_it_answers = later  # type: ignore[method-assign]
    pair.wish(1)
    await pair.rounds()
    assert pair.leader.lives == {"warming": 1}
    pair.change_places()
    await pair.rounds(3)
    answers.set()
    await pair.rounds()
    assert pair.follower.lives == pair.leader.lives == {"serving": 1}
    assert pair.world.made == 1


async def test_one_whose_warming_broke_off_is_brought_up_again() -> None:
    scene, calls = Scene(), 0

    async def once(*unused: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            scene.world.hold = True
            raise RuntimeError("a defect")

    scene.engines.warm = once  # type: ignore[method-assign]
    scene.parts.lives.terms = Terms(replace_after_s=1e6, prompts=({"prompt": "a"},))
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"starting": 1}, "which has a bound"
    scene.up.set()
    await scene.rounds(2)
    assert scene.lives == {"serving": 1}
    assert scene.world.made == 1


class Slow(World):
    """Lets whatever can happen happen while it is called. `refuses` makes the calls fail after that."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.up: asyncio.Event | None = None
        self.refuses = False

    async def scale(
        self, count: int, *, leaving: Sequence[str] = (), fence: int = 0, tiers: Mapping[str, int] | None = None
    ) -> None:
        if self.up is not None:
            self.up.set()
        for _ in range(10):
            await asyncio.sleep(0)
        if self.refuses:
            raise ActuatorError("not now")
        await super().scale(count, leaving=leaving, fence=fence, tiers=tiers)


@pytest.mark.parametrize("is_warmed", [False, True])
async def test_one_that_is_given_up_does_not_come_to_serve_while_it_is_stopped(is_warmed: bool) -> None:
    world = Slow(4)
    scene = Scene(world=world)
    world.hold = not is_warmed
    if is_warmed:

        async def warm(*unused: Any) -> None:
            await scene.up.wait()

        scene.engines.warm = warm  # type: ignore[method-assign]
        scene.parts.lives.terms = Terms(replace_after_s=1e6, prompts=({"prompt": "a"},))
    served: list[str] = []
    scene.parts.lives._on_ready = lambda: served.append("ready")
    scene.wish.replicas = 1
    await scene.rounds()
    assert scene.lives == {"warming" if is_warmed else "starting": 1}
    world.up = scene.up
    scene.wish.replicas = 0
    await scene.rounds()
    assert scene.lives == {}
    assert served == []


async def test_where_it_cannot_be_stopped_it_goes_on_coming_up() -> None:
    world = Slow(4)
    scene = Scene(world=world)
    world.hold = True
    scene.wish.replicas = 1
    await scene.rounds()
    world.up, world.refuses = scene.up, True
    scene.wish.replicas = 0
    await scene.rounds(1)
    assert scene.lives == {"serving": 1}, "before anybody was listed again"
    scene.wish.replicas = 1
    await scene.rounds(2)
    assert scene.lives == {"serving": 1}
    assert world.made == 1


async def test_a_start_that_takes_too_long_fails_once(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tiers=MARKETS)
    scene.world.hold = True
    scene.wish.replicas = 1
    await scene.rounds()
    assert scene.lives == {"starting": 1}
    # Nobody can be stopped while it is so.
    scene.paused = True
    with caplog.at_level(logging.ERROR):
        await scene.rounds(1, scene.parts.times.limit_s + 1.0)
        await scene.rounds(20)
    lives = scene.parts.lives
    assert lives.starts["failed"] == 1
    assert caplog.text.count("has not come up within") == 1
    assert not scene.parts.backoff.is_avoided("spot", scene.clock() + 60.0)
    assert len(lives.tick(scene.clock())) == 1, "it is still to be stopped"
    # One that then ends by itself has failed once all the same.
    scene.world.running.clear()
    await scene.rounds(1)
    assert lives.starts["failed"] == 1
    scene.paused = False
    await scene.rounds()
    assert scene.world.made == 2, "and another one is started for it"


async def test_one_that_took_too_long_once_may_do_so_again() -> None:
    scene = Scene()
    scene.world.hold = True
    scene.wish.replicas = 1
    await scene.rounds()
    scene.paused = True
    await scene.rounds(1, scene.parts.times.limit_s + 1.0)
    scene.up.set()
    await scene.rounds()
    assert scene.lives == {"serving": 1}
    scene.up.clear()
    lives = scene.parts.lives
    lives.rouse(scene.fleet.at(Stage.SERVING)[0])
    await scene.rounds(4, scene.parts.times.limit_s)
    assert lives.starts["failed"] == 2


async def test_a_proxy_that_begins_gives_nobody_up_for_its_age() -> None:
    scene = Scene()
    old_s = 10.0 * scene.parts.times.limit_s
    scene.world.running["old"] = Instance("old", "http://127.0.0.1:9999", age_s=old_s)
    scene.wish.replicas = 1
    await scene.rounds()
    assert scene.lives == {"serving": 1}
    assert list(scene.world.running) == ["old"]
    assert scene.parts.lives.starts["failed"] == 0


async def test_one_that_is_roused_while_it_falls_asleep_is_woken() -> None:
    scene = Scene(most=2, warm=1, sleep=True)

    async def falls_asleep(spec: BackendSpec, settings: PoolConfig) -> int | None:
        scene.engines.asleep.add(spec.id)
        await for_ever()
        return 200

    scene.engines.put_to_sleep = falls_asleep  # type: ignore[method-assign]
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 1}
    scene.wish.replicas = 2
    await scene.rounds(3)
    assert scene.lives["serving"] == 2


async def test_one_that_was_being_woken_and_could_not_be_stopped_is_woken_again() -> None:
    world = Slow(2)
    scene = Scene(most=2, warm=1, sleep=True, world=world)
    scene.wish.replicas = 1
    await scene.rounds(6)
    wake = scene.engines.wake
    scene.engines.wake = for_ever  # type: ignore[assignment, method-assign]
    scene.wish.replicas = 2
    await scene.rounds(2)
    assert scene.lives == {"serving": 1, "starting": 1}
    scene.engines.wake = wake  # type: ignore[method-assign]
    lives = scene.parts.lives
    scene.wish.replicas, world.refuses = 1, True
    lives.terms = replace(lives.terms, warm_size=0)
    await scene.rounds(1)
    scene.wish.replicas = 2
    await scene.rounds(3)
    assert scene.lives == {"serving": 2}
    assert scene.engines.asleep == set()


async def test_waking_one_does_not_say_that_its_tier_can_be_had() -> None:
    scene = Scene(warm=1, tiers=MARKETS)
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 1}
    scene.parts.backoff.failed(scene.clock(), "spot", of_start=True)
    scene.parts.lives.rouse(scene.fleet.at(Stage.STANDBY)[0])
    await scene.rounds(3)
    assert scene.fleet.count(Stage.SERVING) + scene.fleet.count(Stage.STANDBY) == 2
    assert scene.parts.backoff.is_avoided("spot", scene.clock())


async def test_what_a_follower_sees_come_up_does_not_say_so_either() -> None:
    pair = Pair()
    pair.wish(0)
    await pair.rounds(2)
    for scene in (pair.leader, pair.follower):
        scene.parts.backoff.failed(scene.clock(), "", of_start=True)
    pair.wish(1)
    await pair.rounds()
    assert pair.leader.lives == pair.follower.lives == {"serving": 1}
    assert not pair.leader.parts.backoff.is_avoided("", pair.leader.clock())
    assert pair.follower.parts.backoff.is_avoided("", pair.follower.clock())


async def test_what_it_followed_out_of_the_warm_pool_teaches_the_next_leader_nothing() -> None:
    pair = Pair(most=2, warm=1, sleep=True)
    # What it finds when it begins teaches nothing anyway.
    await pair.follower.scaler._poll()
    pair.wish(1)
    await pair.rounds()
    answers = asyncio.Event()

    async def later(spec: BackendSpec, settings: PoolConfig) -> None:
        await answers.wait()

    follower = pair.follower
    follower.engines.until_it_answers = later  # type: ignore[method-assign]
    follower.parts.backoff.failed(follower.clock(), "", of_start=True)
    pair.wish(2)
    await pair.rounds()
    assert pair.leader.lives == {"serving": 2}
    assert follower.lives == {"serving": 1, "starting": 1}
    pair.change_places()
    await pair.rounds(2)
    answers.set()
    await pair.rounds(2)
    assert follower.lives == {"serving": 2}
    assert follower.parts.backoff.is_avoided("", follower.clock())
