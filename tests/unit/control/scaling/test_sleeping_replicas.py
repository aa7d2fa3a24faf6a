"""A warm pool of engines that sleep, that will not, and that sleep already when a proxy begins."""

from dataclasses import replace

import pytest

from llmproxy.control.scaling.fleet import Stage
from tests.unit.control.scaling.test_pool_scaler import Scene


async def test_they_sleep_and_are_woken() -> None:
    scene = Scene(warm=1, sleep=True)
    scene.wish.replicas = 1
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 1}
    assert len(scene.engines.asleep) == 1
    scene.wish.replicas = 2
    await scene.rounds(2)
    assert scene.lives["serving"] == 2
    assert scene.world.made >= 2


async def test_where_engines_refuse_to_sleep_there_is_no_warm_pool() -> None:
    scene = Scene(warm=1, sleep=True)
    scene.engines.says = 404
    scene.wish.replicas = 1
    await scene.rounds(40)
    assert scene.lives == {"serving": 1}
    assert scene.world.made == 2, "one is enough to know it"
    assert scene.parts.backoff.wait_s(scene.clock()) == 0
    # A reload may be about just that.
    scene.engines.says = 200
    scene.parts.lives.terms = replace(scene.parts.lives.terms)
    await scene.rounds(6)
    assert scene.lives == {"serving": 1, "standby": 1}


async def test_one_that_does_not_answer_is_tried_again_but_not_at_once() -> None:
    scene = Scene(warm=1, sleep=True)
    # Nobody probes here: they are not well for as long as they are there.
    scene.parts.lives.terms = replace(scene.parts.lives.terms, replace_after_s=1e9)
    scene.engines.says = None
    scene.wish.replicas = 1
    await scene.rounds(300)
    assert 3 <= scene.world.made <= 12, "five minutes, with waits that double"
    assert len(scene.fleet.at(Stage.SERVING)) == 1
    scene.engines.says = 200
    await scene.rounds(300)
    assert scene.lives == {"serving": 1, "standby": 1}


async def test_a_proxy_that_begins_finds_those_that_sleep() -> None:
    first = Scene(warm=1, sleep=True)
    first.wish.replicas = 1
    await first.rounds(6)
    second = Scene(warm=1, sleep=True, world=first.world)
    second.engines = first.engines
    second.parts.lives._bring_up = first.engines
    second.wish.replicas = 1
    await second.rounds(6)
    assert second.lives == {"serving": 1, "standby": 1}
    assert [one.asleep for one in second.fleet.at(Stage.STANDBY)] == [True]
    assert second.world.made == 2


@pytest.mark.parametrize(("says", "asleep"), [(404, False), (None, True)])
async def test_one_that_refuses_is_awake_and_one_that_does_not_answer_may_sleep(says: int | None, asleep: bool) -> None:
    scene = Scene(warm=1, sleep=True)
    scene.wish.replicas = 1
    await scene.rounds(6)
    scene.engines.says, scene.paused = says, True
    [replica] = scene.fleet.at(Stage.SERVING)
    scene.parts.lives.rest(replica)
    await scene.rounds(1)
    assert (replica.stage, replica.asleep) == (Stage.DRAINING, asleep)
