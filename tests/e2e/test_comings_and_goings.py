"""What is known, shown and logged of backends as they come up, fail, recover and leave."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llmproxy.config.model import Config
from llmproxy.control import catalog
from llmproxy.control.leavers import LINGER_S
from llmproxy.control.reload import Trigger
from llmproxy.core.backend import Status
from tests.harness.proxy import Proxy, config_of, settings
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

WHOLE = chat(stream=False, max_tokens=1)


async def test_models_are_listed_as_soon_as_an_engine_is_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # The catalogue's own turn comes in no test's time.
    monkeypatch.setattr(catalog, "LOOK_EVERY_S", 1000.0)
    loading = await stage.backend(models=("a",), fail="refuse")
    proxy = await stage.proxy(loading, pool={"health": {"interval": "50ms"}}, healthy=False)
    await until(lambda: proxy.backend("b1").status is Status.LOADING, "a loading backend")

    async def listed() -> list[str]:
        return [card["id"] for card in (await stage.ask(proxy, path="/v1/models")).json["data"]]

    assert await listed() == []
    loading.set_fault("")
    await until(listed, "its models")
    assert await listed() == ["a"]


async def test_the_event_loop_s_lag_is_measured(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend())
    await until(lambda: proxy.metric("llmproxy_event_loop_lag_seconds_count") >= 2, "two measurements")


# -- leaving -----------------------------------------------------------------------------------------------------------


class Reloadable:
    """A proxy whose configuration is whatever `pools` last was."""

    def __init__(self, stage: Stage, path: Any) -> None:
        self._stage = stage
        self._log = path / "access-0.jsonl"

    def set(self, **pools: dict[str, str]) -> dict[str, Any]:
        """Pools as ids and URLs of their backends."""
        entries = {
            name: {"backends": [{"id": id, "url": url} for id, url in backends.items()]}
            for name, backends in pools.items()
        }
        models = {f"m-{name}": {"pool": name, "rewrite": "emulated"} for name in pools}
        values = settings(entries, self._log, models=models)
        self.config: Config = config_of(values)
        return values

    async def start(self, **pools: dict[str, str]) -> Proxy:
        self.proxy = await self._stage.serve(self.set(**pools), load=lambda: self.config)
        return self.proxy

    async def change(self, **pools: dict[str, str]) -> None:
        self.set(**pools)
        assert (await self.proxy.app.reloader.reload(Trigger.ADMIN)).ok

    def rows(self, **labels: str) -> list[str]:
        """The page's samples with these labels."""
        page = self.proxy.app._exposition.render()[0].decode()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return [line for line in page.splitlines() if all(each in line for each in wanted)]


@pytest.fixture
def reloadable(stage: Stage, tmp_path: Any) -> Reloadable:
    return Reloadable(stage, tmp_path)


async def ask(stage: Stage, proxy: Proxy, pool: str, times: int = 4) -> None:
    for _ in range(times):
        assert (await stage.ask(proxy, WHOLE | {"model": f"m-{pool}"})).status == 200


async def test_what_was_counted_of_a_leaver_goes_once_it_has_drained(stage: Stage, reloadable: Reloadable) -> None:
    one, two = await stage.backends(2, itl_s=0.005)
    proxy = await reloadable.start(p={"b1": one.url, "b2": two.url})
    await ask(stage, proxy, "p")
    streams = [await stage.streaming(proxy, chat(max_tokens=100_000) | {"model": "m-p"}) for _ in range(2)]
    assert {answer.header("x-llmproxy-backend") for _, answer in streams} == {"b1", "b2"}
    assert len(reloadable.rows(pool="p", backend="b2", outcome="ok")) == 1
    kept = reloadable.rows(pool="p", backend="b1", outcome="ok")
    await reloadable.change(p={"b1": one.url})
    # A stream still runs there.
    left = proxy.app._leavers._left
    stage.clock.jump(LINGER_S + 1)
    await until(lambda: left and all(since > stage.clock() - LINGER_S for _, since in left.values()), "a look at it")
    assert reloadable.rows(pool="p", backend="b2")
    for client, _ in streams:
        client.leave()
    await proxy.at_rest()
    await until(lambda: reloadable.rows(backend="b2", outcome="abandoned"), "the end of it, for a scraper to see")
    stage.clock.jump(LINGER_S + 1)
    await until(lambda: not reloadable.rows(pool="p", backend="b2"), "its rows gone")
    assert reloadable.rows(pool="p", backend="b1", outcome="ok") == kept
    # Back again it starts anew, and leaves no more behind than before.
    await reloadable.change(p={"b1": one.url, "b2": two.url})
    await proxy.healthy(pool="p")
    assert reloadable.rows(pool="p", backend="b2", state="healthy")[0].endswith(" 1.0")


async def test_a_pool_leaves_nothing_behind_either(stage: Stage, reloadable: Reloadable) -> None:
    one, two = await stage.backends(2)
    proxy = await reloadable.start(p={"b1": one.url}, q={"b2": two.url})
    for pool in ("p", "q"):
        await ask(stage, proxy, pool)
    assert reloadable.rows(pool="q", model="m-q")
    await reloadable.change(p={"b1": one.url})
    stage.clock.jump(LINGER_S + 1)
    await until(lambda: not reloadable.rows(pool="q"), "no trace of the pool")
    assert reloadable.rows(pool="p", model="m-p")


async def test_another_server_of_the_same_name_goes_on_counting(stage: Stage, reloadable: Reloadable) -> None:
    one, two = await stage.backends(2)
    proxy = await reloadable.start(p={"b1": one.url})
    await ask(stage, proxy, "p")
    await reloadable.change(p={"b1": two.url})
    await proxy.healthy(pool="p")
    stage.clock.jump(LINGER_S + 1)
    await until(lambda: not proxy.app._leavers._left, "the leaver gone")
    await ask(stage, proxy, "p")
    assert proxy.metric("llmproxy_attempts_total", backend="b1", outcome="ok") == 8


# -- the log -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def changes(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Every line about a status so far, from wherever it came."""
    caplog.set_level(logging.INFO, "llmproxy")

    def changes() -> list[str]:
        lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
        return [line for line in lines if any(f" {status.value}" in line for status in Status)]

    return changes


async def test_every_change_is_logged_once_whoever_noticed(stage: Stage, changes: Callable[[], list[str]]) -> None:
    engine = await stage.backend(fail="refuse")
    pool = {"health": {"interval": "50ms", "slow_start": "0s"}, "breaker": {"failures": 2, "open_for": "60s"}}
    proxy = await stage.proxy(engine, pool=pool, healthy=False)
    backend = proxy.backend("b1")
    await until(lambda: backend.status is Status.LOADING, "loading")
    engine.set_fault("")
    await proxy.healthy()
    engine.set_fault("status=500")
    for _ in range(2):
        assert (await stage.ask(proxy, WHOLE)).status == 500
    assert backend.status is Status.OPEN
    engine.set_fault("")
    stage.clock.jump(61)
    assert (await stage.ask(proxy, WHOLE)).status == 200
    assert backend.status is Status.HEALTHY
    assert changes() == [
        "INFO pool main: backend b1: new -> loading (probe: connection refused)",
        "INFO pool main: backend b1: loading -> healthy (probe: well)",
        "WARNING pool main: backend b1: healthy -> open (too many failures, the last one: server_error)",
        "INFO pool main: backend b1: open -> half_open (its time out is over)",
        "INFO pool main: backend b1: half_open -> healthy (the trial ended: ok)",
    ]


async def test_one_that_flaps_is_told_of_in_sum(stage: Stage, changes: Callable[[], list[str]]) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool={"health": {"interval": "20ms"}})
    health, backend = proxy.pool().health, proxy.backend("b1")
    for _ in range(20):
        health.drain(backend, stage.clock())
        health.undrain(backend, stage.clock())
    assert len(changes()) == 6
    stage.clock.jump(61)
    await until(lambda: len(changes()) == 7, "the rest, with the next probe")
    assert changes()[-1] == "INFO pool main: backend b1: healthy, after 35 changes not logged"


async def test_who_waits_for_a_pool_that_goes_is_told_so(stage: Stage, reloadable: Reloadable) -> None:
    engine, other = await stage.backend(ttft_s=60.0), await stage.backend()
    proxy = await reloadable.start(p={"b1": engine.url}, q={"b2": other.url})
    (backend,) = proxy.app.pools["p"].backends
    backend.spec = replace(backend.spec, max_concurrency=1)
    proxy.app.pools["p"].bounded = True
    first, second = await stage.client(proxy), await stage.client(proxy)
    await first.send("POST", CHAT, WHOLE | {"model": "m-p"})
    await until(lambda: engine.in_flight == 1, "a busy engine")
    await second.send("POST", CHAT, WHOLE | {"model": "m-p"})
    await until(lambda: proxy.app.pools["p"].queue.waiting == 1, "one who waits")
    room = proxy.app.handler._rooms["p"]
    await reloadable.change(q={"b2": other.url})
    answer = await second.answer()
    assert (answer.status, answer.json["error"]["code"]) == (503, "no_backend_available")
    assert room not in proxy.app._deadlines._items
    assert proxy.app.handler._rooms.keys() <= {"q"}
