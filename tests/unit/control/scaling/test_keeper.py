"""What a restart must not cost: a forecast's history, money spent, pauses."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from llmproxy.control.scaling.keeper import Keeper, carry_over, skills
from llmproxy.policy.scaling.base import Demand, Rates, Signals
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.forecast import Forecast, ForecastOptions
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.money import Budget, Spent
from llmproxy.policy.scaling.stabiliser import Behavior, Stabiliser
from llmproxy.stores.history import MemoryHistory, SqliteHistory
from llmproxy.stores.history_redis import RedisHistory
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.unit.control.scaling.test_pool_scaler import Scene

BEGIN = 1_700_000_040.0
BUDGET = Budget(price=2.0, per_month=100.0)


def decider(budget: Budget | None = BUDGET, changes: int | None = None) -> Decider:
    limits = Limits(0, 9, changes, budget)
    return Decider([Forecast(ForecastOptions())], Stabiliser(Behavior()), Guardrails(limits))


def signals(minute: int, ready: int = 1) -> Signals:
    rate = float(10 + minute % 7)
    demand = Demand(last_60s=Rates(rate))
    at = 60.0 * minute
    return Signals(
        now=at, unix_s=BEGIN + at, ready=ready, demand=demand, sustainable=Rates(4.0), cold_start_s=90.0, queue_depth=0
    )


async def test_a_forecast_goes_on_where_it_was(tmp_path: Path) -> None:
    store = SqliteHistory(tmp_path / "state" / "history.db")
    now = [BEGIN]
    first, keeper = decider(), Keeper("main", store, lambda: now[0])
    await keeper.begin()
    await keeper.prepare(first, 90.0)
    for minute in range(100):
        now[0] = BEGIN + 60.0 * minute
        first.decide(signals(minute), 60.0 * minute)
        if minute % 10 == 0:
            await keeper.keep(first)
    await keeper.keep(first)
    judged = skills(first)
    assert judged.keys() == {"requests_per_s"}

    second, later = decider(), Keeper("main", store, lambda: now[0])
    await later.begin()
    assert not later.is_prepared(second, 90.0)
    await later.prepare(second, 90.0)
    assert later.is_prepared(second, 90.0)
    assert skills(second) == judged
    assert not later.is_prepared(second, 600.0), "another horizon is learned outside the loop too"


async def test_new_policies_know_also_what_is_not_written_yet() -> None:
    keeper = Keeper("main", MemoryHistory(), lambda: BEGIN + 6000.0)
    first = decider()
    await keeper.begin()
    await keeper.prepare(first, 90.0)
    for minute in range(100):
        first.decide(signals(minute), 60.0 * minute)
    keeper.take(first)
    second = decider()
    await keeper.prepare(second, 90.0)
    assert skills(second) == skills(first)


async def test_money_is_counted_on(tmp_path: Path) -> None:
    store = SqliteHistory(tmp_path / "history.db")
    first, keeper = decider(), Keeper("main", store, lambda: BEGIN)
    await keeper.begin()
    await keeper.prepare(first, 90.0)
    for minute in range(4):
        first.decide(signals(minute, ready=3), 60.0 * minute)
    await keeper.keep(first)
    spent = first.guardrails.spent
    assert spent is not None
    assert abs(spent.month - 3 * 2.0 * 3 / 60) < 1e-9

    second, later = decider(), Keeper("main", store, lambda: BEGIN)
    await later.begin()
    await later.prepare(second, 90.0)
    assert second.guardrails.spent == spent
    second.decide(signals(10, ready=3), 600.0)
    assert second.guardrails.spent is not None
    assert abs(second.guardrails.spent.month - 3 * 2.0 * 10 / 60) < 1e-9, "replicas cost while no proxy watched them"


async def test_what_a_replica_sustains_is_known_after_a_restart(tmp_path: Path) -> None:
    store = SqliteHistory(tmp_path / "history.db")
    scene = Scene()
    scene.parts.keeper = Keeper("main", store, lambda: BEGIN)
    await scene.rounds(1)
    scene.parts.meter.capacity.observe(Rates(8.0), 2, saturated=True, in_time=False, interval_s=5.0)
    await scene.rounds(2, 60.0)

    later = Scene()
    later.parts.keeper = Keeper("main", store, lambda: BEGIN)
    await later.rounds(1)
    assert later.parts.meter.capacity.rates == Rates(4.0)


async def test_pauses_hold_over_a_restart(tmp_path: Path) -> None:
    store = SqliteHistory(tmp_path / "history.db")
    pauses = {"*": "ops: fire"}
    await Keeper("main", store, lambda: BEGIN, paused=lambda: pauses).keep_pauses()
    found: dict[str, str] = {}
    await Keeper("main", store, lambda: BEGIN, on_paused=found.update).begin()
    assert found == pauses
    await Keeper("main", store, lambda: BEGIN).keep_pauses()
    found.clear()
    await Keeper("main", store, lambda: BEGIN, on_paused=found.update).begin()
    assert found == {}


async def test_a_store_that_fails_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_text("no database " * 100)
    now = [BEGIN]
    keeper, one = Keeper("main", SqliteHistory(tmp_path / "history.db"), lambda: now[0]), decider()
    await keeper.begin()
    await keeper.prepare(one, 90.0)
    one.decide(signals(0), 0.0)
    await keeper.keep(one)
    await keeper.keep_pauses()
    (tmp_path / "history.db").unlink()
    await keeper.keep(one)
    assert len(SqliteHistory(tmp_path / "history.db").read("main", 0)) == 1, "kept once it can be"


async def test_facts_that_are_nonsense_are_none(tmp_path: Path) -> None:
    for text in ("[1]", "{", json.dumps({"unix_s": "x"}), json.dumps({"else": 1})):
        store = MemoryHistory()
        store.remember("main", "spent", text)
        store.remember("main", "paused", text)
        keeper, one = Keeper("main", store, lambda: BEGIN), decider()
        await keeper.begin()
        await keeper.prepare(one, 90.0)
        assert one.guardrails.spent is None


def test_what_was_done_under_old_limits_counts_under_new_ones() -> None:
    old, new = decider(changes=2).guardrails, decider(changes=2).guardrails
    old.resume(Spent(BEGIN, 1.0, 2.0))
    old.done(2, 0.0)
    carry_over(old, new)
    assert new.rule(5, signals(0), 0.0).replicas == 1
    assert new.spent == Spent(BEGIN, 1.0, 2.0)


async def test_learning_does_not_hold_up_the_loop_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    prepare = Forecast.prepare

    def noted(forecast: Forecast, cold_start_s: float | None) -> None:
        threads.append(threading.current_thread())
        prepare(forecast, cold_start_s)

    monkeypatch.setattr(Forecast, "prepare", noted)
    await Keeper("main", MemoryHistory(), lambda: BEGIN).prepare(decider(), 90.0)
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.skipif(not is_installed(), reason=MISSING)
async def test_nobody_acts_before_it_is_known_what_was_spent(tmp_path: Path) -> None:
    """A budget binds all proxies that share a Redis: one that cannot ask what is left of it waits."""
    with RedisServer(tmp_path) as server:
        store = RedisHistory(server.url, timeout_s=0.5)
        spent = json.dumps({"unix_s": BEGIN, "hour": 1.0, "month": 99.0})
        await asyncio.to_thread(store.remember, "main", "spent", spent)
        server.freeze()
        scene = Scene()
        keeper = scene.parts.keeper = Keeper("main", store, lambda: BEGIN, is_shared=True)
        scene.wish.replicas = 2
        await scene.rounds()
        assert not keeper.has_begun
        assert scene.world.calls == []
        server.resume()
        await scene.rounds(6)
        assert keeper.has_begun
        assert scene.lives == {"serving": 2}
        one = decider()
        await keeper.prepare(one, 90.0)
        assert one.guardrails.spent == Spent(BEGIN, 1.0, 99.0)
        store.close()


@pytest.mark.skipif(not is_installed(), reason=MISSING)
async def test_of_those_that_share_a_history_the_leader_writes_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        store = RedisHistory(server.url)
        scene = Scene()
        scene.parts.keeper = Keeper("main", store, lambda: BEGIN, is_shared=True)
        scene.parts.decider = decider()
        scene.parts.leadership._crown.holder = "another"  # type: ignore[attr-defined]
        await scene.rounds(3, 40.0)
        assert await asyncio.to_thread(store.fact, "main", "spent") is None
        scene.parts.leadership._crown.holder = None  # type: ignore[attr-defined]
        await scene.rounds(3, 40.0)
        assert await asyncio.to_thread(store.fact, "main", "spent") is not None
        store.close()
