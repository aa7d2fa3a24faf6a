"""Two loops over one fleet: what the one that leads says of a replica holds for the other."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmproxy.control.scaling.fleet import Stage
from llmproxy.control.scaling.orders import Orders
from llmproxy.control.scaling.reports import Reports
from llmproxy.control.scaling.shared import Shared
from llmproxy.control.scaling.tables import LocalTable
from llmproxy.core.backend import Status
from tests.unit.control.scaling.test_pool_scaler import Crown, Scene, World


class Blackboard:
    """What Redis does for `Orders`, and a table of reports, in memory. `away` makes it fail."""

    def __init__(self, crown: Crown) -> None:
        self.crown = crown
        self.text: str | None = None
        self.away = False
        self.reports = LocalTable()

    async def evaluate(self, script: str, keys: list[str], arguments: list[str]) -> Any:
        if self.away:
            raise ConnectionError("away")
        if not arguments:
            return self.text
        token, text = arguments
        if int(token) != self.crown.fence:
            return 0
        self.text = text
        return 1

    def shared(self, name: str) -> Shared:
        return Shared(
            reports=Reports(self.reports, name),
            report_table=self.reports,
            orders=Orders(self.evaluate, "stages", "fence"),
        )


class Pair:
    def __init__(self, **options: Any) -> None:
        world, self.crown = World(4), Crown()
        self.board = Blackboard(self.crown)
        self.leader, self.follower = (
            Scene(world=world, crown=self.crown, shared=self.board.shared(name), **options)
            for name in ("leader", "follower")
        )
        self.follower.engines.asleep = self.leader.engines.asleep
        self.world = world

    def wish(self, replicas: int | None) -> None:
        for scene in (self.leader, self.follower):
            scene.wish.replicas = replicas

    async def rounds(self, count: int = 6) -> None:
        for _ in range(count):
            await self.leader.rounds(1)
            await self.follower.rounds(1)

    def change_places(self) -> None:
        self.crown.holder = self.follower.parts.leadership
        self.crown.fence += 1
        for scene in (self.leader, self.follower):
            scene.scaler._due["lease"] = 0.0


def stages(scene: Scene) -> Mapping[str, Stage]:
    return {one.id: one.stage for one in scene.fleet.replicas.values()}


async def test_the_follower_has_what_the_leader_has() -> None:
    pair = Pair(warm=1, sleep=True)
    pair.wish(2)
    await pair.rounds()
    assert pair.leader.lives == {"serving": 2, "standby": 1}
    assert stages(pair.follower) == stages(pair.leader)
    assert len(pair.leader.engines.asleep) == 1, "the follower put nobody to sleep, and woke nobody"
    assert len(pair.follower.pool.backends) == 2


async def test_one_that_drains_is_stopped_when_the_follower_is_done_with_it() -> None:
    pair = Pair()
    pair.wish(2)
    await pair.rounds()
    for backend in pair.follower.pool.backends:
        backend.load.enter()
    pair.wish(1)
    await pair.rounds(10)
    [left] = [id for id, stage in stages(pair.leader).items() if stage is Stage.DRAINING]
    assert len(pair.world.running) == 2
    [there] = [backend for backend in pair.follower.pool.backends if backend.id == left]
    assert there.status is Status.DRAINING
    there.load.leave()
    await pair.rounds()
    assert left not in pair.world.running
    assert pair.leader.lives == pair.follower.lives == {"serving": 1}


async def test_what_the_follower_knows_of_sessions_counts_for_the_leader() -> None:
    pair = Pair()
    pair.wish(2)
    await pair.rounds()
    # They are alike otherwise, and the first one would go.
    holder = pair.leader.pool.backends[0].id
    pair.follower.parts.own_sessions = lambda now: {holder: 3}
    await pair.rounds(2)
    pair.wish(1)
    await pair.rounds()
    assert [id for id, stage in stages(pair.leader).items() if stage is Stage.SERVING] == [holder]


async def test_one_that_is_taken_back_is_taken_back_everywhere() -> None:
    pair = Pair()
    pair.wish(2)
    await pair.rounds()
    for backend in pair.follower.pool.backends:
        backend.load.enter()
    pair.wish(1)
    await pair.rounds()
    assert pair.follower.lives == {"serving": 1, "draining": 1}
    pair.wish(2)
    await pair.rounds()
    assert pair.leader.lives == pair.follower.lives == {"serving": 2}
    assert Status.DRAINING not in {backend.status for backend in pair.follower.pool.backends}


async def test_a_follower_that_is_gone_holds_up_nobody_for_long() -> None:
    pair = Pair()
    pair.wish(2)
    await pair.rounds()
    for backend in pair.follower.pool.backends:
        backend.load.enter()
    pair.wish(1)
    await pair.leader.rounds(10)
    assert pair.leader.lives == {"serving": 1}


async def test_what_the_follower_thinks_of_a_replica_changes_nothing() -> None:
    pair = Pair()
    pair.wish(2)
    await pair.rounds()
    calls = len(pair.world.calls)
    lives = pair.follower.parts.lives
    lives.hung(pair.follower.pool.backends[0])
    # Nobody probes them here: they are not well for as long as they are there.
    lives.terms = replace(lives.terms, replace_after_s=3.0)
    await pair.rounds(20)
    assert pair.leader.lives == pair.follower.lives == {"serving": 2}
    assert len(pair.world.calls) == calls


async def test_the_next_leader_goes_on_from_there() -> None:
    pair = Pair(warm=1, sleep=True)
    pair.wish(2)
    await pair.rounds()
    before = dict(stages(pair.leader))
    pair.change_places()
    await pair.rounds(4)
    assert stages(pair.follower) == before
    assert pair.world.made == 3
    pair.wish(1)
    await pair.rounds(8)
    assert pair.follower.lives == {"serving": 1, "standby": 1}
    assert stages(pair.leader) == stages(pair.follower)


async def test_a_leader_that_has_just_begun_does_not_say_that_there_is_nobody() -> None:
    pair = Pair(warm=1, sleep=True)
    pair.wish(1)
    await pair.rounds()
    told = pair.board.text
    third = Scene(warm=1, sleep=True, world=pair.world, crown=pair.crown, shared=pair.board.shared("third"))
    third.engines.asleep = pair.leader.engines.asleep
    third.wish.replicas = 1
    pair.crown.holder = third.parts.leadership
    pair.crown.fence += 1
    pair.leader.scaler._due["lease"] = 0.0
    third.world.fails = True
    await third.rounds(2)
    assert pair.board.text == told
    third.world.fails = False
    await third.rounds(6)
    assert third.lives == {"serving": 1, "standby": 1}
    assert [one.asleep for one in third.fleet.at(Stage.STANDBY)] == [True]


async def test_while_redis_is_away_what_was_said_last_holds() -> None:
    pair = Pair(warm=1, sleep=True)
    pair.wish(2)
    await pair.rounds()
    before = dict(stages(pair.follower))
    pair.board.away = True
    await pair.rounds(4)
    assert stages(pair.follower) == before


async def test_what_was_coming_when_redis_went_is_taken_by_each_for_itself() -> None:
    pair = Pair()
    coming = asyncio.Event()

    async def later(spec: Any, settings: Any) -> None:
        await coming.wait()

    for scene in (pair.leader, pair.follower):
        scene.engines.until_it_answers = later  # type: ignore[method-assign]
    pair.wish(1)
    await pair.rounds()
    assert pair.follower.lives == {"starting": 1}
    pair.board.away = True
    coming.set()
    await pair.rounds()
    assert pair.leader.lives == pair.follower.lives == {"serving": 1}


async def test_an_old_leaders_word_is_not_heard() -> None:
    pair = Pair()
    pair.wish(1)
    await pair.rounds()
    orders = pair.leader.shared.orders
    assert orders is not None
    told = pair.board.text
    pair.crown.fence += 1
    pair.leader.fleet.replicas.clear()
    await orders.sync(pair.crown.fence - 1, pair.leader.fleet)
    assert pair.board.text == told
