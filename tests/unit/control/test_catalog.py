"""Who serves what is known as soon as a backend may be given work; slow and broken ones hold nobody up."""

import asyncio
import random

import pytest
from aiohttp import web

from llmproxy.control import catalog as catalog_module
from llmproxy.control.catalog import ASK_AGAIN_S, RETRY_S, Catalog
from llmproxy.control.members import merge, specs
from llmproxy.control.resolver import Resolver
from llmproxy.core.backend import Status
from llmproxy.core.clock import ManualClock


class Engine:
    """Lists `models` once `open` is set; `asked` counts."""

    def __init__(self):
        self.models = ["m"]
        self.status = 200
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def handle(self, request):
        self.asked += 1
        await self.open.wait()
        return web.json_response({"data": [{"id": name} for name in self.models]}, status=self.status)


@pytest.fixture
async def engines():
    """Two servers."""
    engines, runners = [Engine(), Engine()], []
    for engine in engines:
        runner = web.ServerRunner(web.Server(engine.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
    yield engines
    for engine in engines:
        engine.open.set()
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def seldom(monkeypatch):
    """No tick comes in any test's time: what happens, happens because it was told."""
    monkeypatch.setattr(catalog_module, "LOOK_EVERY_S", 1000.0)


@pytest.fixture
async def started(engines, make_pool):
    """A catalogue over both engines, neither of them well yet."""
    clock = ManualClock(5.0)
    pool = make_pool(*(engine.url for engine in engines))
    pool.set_members(merge((), specs(pool.name, pool.settings, lambda host, port: None)), 0.0)
    told = []
    catalog = Catalog(
        lambda: {pool.name: pool},
        resolver=Resolver(clock=clock, rng=random.Random(3)),
        clock=clock,
        on_names=told.extend,
    )
    catalog.start()
    await asyncio.sleep(0)
    yield catalog, pool, clock, told
    await catalog.stop()


def well(catalog, backend):
    backend.status = Status.HEALTHY
    catalog.came_up(backend)


async def test_a_backend_is_asked_when_it_comes_up_not_when_its_turn_comes(seldom, started, engines, eventually):
    catalog, pool, _, told = started
    assert catalog.names() == []
    well(catalog, pool.backends[0])
    await eventually(lambda: catalog.names() == ["m"], "its models")
    assert told == ["m"]
    assert [engine.asked for engine in engines] == [1, 0]


async def test_and_again_when_it_recovers(seldom, started, engines, eventually):
    catalog, pool, _, _ = started
    well(catalog, pool.backends[0])
    await eventually(lambda: catalog.names() == ["m"])
    engines[0].models = ["new", "er"]
    pool.backends[0].status = Status.UNHEALTHY
    assert catalog.names() == ["m"], "an engine that restarts keeps its models meanwhile"
    well(catalog, pool.backends[0])
    await eventually(lambda: catalog.names() == ["er", "new"], "its new models")


async def test_a_slow_one_holds_nobody_up(seldom, started, engines, eventually):
    catalog, pool, _, _ = started
    engines[0].open.clear()
    well(catalog, pool.backends[0])
    await eventually(lambda: engines[0].asked == 1)
    engines[1].models = ["quick"]
    well(catalog, pool.backends[1])
    await eventually(lambda: catalog.names() == ["quick"], "the other one's models")
    # One that recovers is asked anew, though it still owes an answer from before.
    well(catalog, pool.backends[0])
    await eventually(lambda: engines[0].asked == 2)
    engines[0].open.set()
    await eventually(lambda: catalog.names() == ["m", "quick"])


async def test_it_asks_again_in_time_and_sooner_after_a_failure(monkeypatch, started, engines, eventually):
    monkeypatch.setattr(catalog_module, "LOOK_EVERY_S", 0.001)
    catalog, pool, clock, _ = started
    engines[0].status = 404
    well(catalog, pool.backends[0])
    await eventually(lambda: engines[0].asked == 1 and not catalog._asking)
    engines[0].status = 200
    clock.advance(RETRY_S)
    await eventually(lambda: catalog.names() == ["m"])
    engines[0].models = ["later"]
    clock.advance(ASK_AGAIN_S - 1)
    engines[1].models = []
    well(catalog, pool.backends[1])
    await eventually(lambda: engines[1].asked == 1 and not catalog._asking)
    assert engines[0].asked == 2, "not yet"
    clock.advance(1)
    await eventually(lambda: catalog.names() == ["later"])


async def test_leavers_models_go(monkeypatch, started, engines, eventually):
    monkeypatch.setattr(catalog_module, "LOOK_EVERY_S", 0.001)
    catalog, pool, _, _ = started
    engines[1].models = ["other"]
    for backend in pool.backends:
        well(catalog, backend)
    await eventually(lambda: catalog.names() == ["m", "other"])
    pool.set_members(pool.backends[1:], 0.0)
    await eventually(lambda: catalog.names() == ["other"])


async def test_stop_ends_what_is_being_asked(seldom, started, engines, eventually):
    catalog, pool, _, _ = started
    engines[0].open.clear()
    well(catalog, pool.backends[0])
    await eventually(lambda: engines[0].asked == 1)
    await catalog.stop()
    assert catalog._asking == {}
