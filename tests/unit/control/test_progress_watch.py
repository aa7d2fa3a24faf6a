"""Hung engines are found, taken out, asked for a token, and let in again; on real sockets."""

import random

import pytest
from aiohttp import web

from llmproxy.control.members import merge, specs
from llmproxy.control.progress import FIRST_PAUSE_S, LONGEST_PAUSE_S, ProgressWatch
from llmproxy.control.resolver import Resolver
from llmproxy.core.backend import Gauges, Status
from llmproxy.core.clock import ManualClock
from llmproxy.policy.health.progress import Work


class Engine:
    """Answers `POST /v1/completions` with `status`; `asked` are the bodies."""

    def __init__(self):
        self.status = 500
        self.asked = []
        self.keys = set()

    async def handle(self, request):
        assert (request.method, request.path) == ("POST", "/v1/completions")
        self.asked.append(await request.json())
        self.keys.add(request.headers.get("Authorization"))
        return web.json_response({"choices": []}, status=self.status)


@pytest.fixture
async def engine():
    engine = Engine()
    runner = web.ServerRunner(web.Server(engine.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield engine
    await runner.cleanup()


class Watch:
    """A watch over one pool, whose first backend's gauges a test moves."""

    def __init__(self, pool, naps):
        self.clock = ManualClock(1000.0)
        self.pool = pool
        pool.health.hung = self._hung
        self.told = []
        self.hung = []
        self.work = Work(requests=1)
        rng = random.Random(3)
        self.watch = ProgressWatch(
            lambda: {pool.name: pool},
            lambda backend: self.work,
            resolver=Resolver(clock=self.clock, rng=rng),
            clock=self.clock,
            on_hung=lambda pool, backend: self.hung.append((pool.name, backend.id)),
            sleep=naps,
        )
        self.tokens = 100.0

    def _hung(self, backend, is_hung, now):
        self.told.append((backend.id, is_hung))
        backend.status = Status.UNHEALTHY if is_hung else Status.HEALTHY

    def see(self, seconds=1, running=1.0, grow=0.0):
        """A reading a second, for so long."""
        [backend, *_] = self.pool.backends
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.tokens += grow
            backend.gauges = Gauges(
                self.clock(), running=running, generation_tokens=self.tokens, models=("m", "n"), max_age_s=5.0
            )
            self.watch.read(self.pool, backend)


@pytest.fixture
async def watch(engine, make_pool, naps):
    pool = make_pool({"url": engine.url, "id": "b"}, upstream_key="secret")
    pool.set_members(merge((), specs(pool.name, pool.settings, lambda host, port: None)), 0.0)
    watch = Watch(pool, naps)
    await watch.watch.start()
    yield watch
    await watch.watch.stop()


async def test_a_hung_engine_is_taken_out_once_and_its_requests_may_go_elsewhere(watch, caplog):
    watch.see(60)
    assert watch.told == []
    watch.see(20)
    assert watch.told == [("b", True)]
    assert watch.hung == [("llama", "b")]
    assert watch.watch.hangs == {("llama", "b"): 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_it_is_asked_for_a_token_ever_less_often(watch, engine, eventually, naps):
    watch.see(61)
    for round in range(6):
        await eventually(lambda: naps.sleeping)
        assert len(engine.asked) == round + 1
        naps.wake()
        await eventually(lambda: len(naps.asked_s) > round + 1 and naps.sleeping)  # noqa: B023
    assert engine.asked[0] == {"model": "m", "prompt": "1", "max_tokens": 1}
    assert engine.keys == {"Bearer secret"}
    assert naps.asked_s[:5] == [FIRST_PAUSE_S * 2**n for n in range(4)] + [LONGEST_PAUSE_S]
    assert watch.told == [("b", True)]


async def test_a_token_brings_it_back(watch, engine, eventually, naps, caplog):
    caplog.set_level("INFO")
    watch.see(61)
    await eventually(lambda: naps.sleeping)
    engine.status = 200
    naps.wake()
    await eventually(lambda: watch.told == [("b", True), ("b", False)])
    assert "generated a token" in caplog.text
    watch.see(59)
    assert len(watch.told) == 2
    watch.see(2)
    assert watch.told[2:] == [("b", True)]
    assert watch.watch.hangs == {("llama", "b"): 2}


async def test_counters_that_move_bring_it_back_and_end_the_asking(watch, eventually, naps):
    watch.see(61)
    await eventually(lambda: naps.sleeping)
    watch.see(1, grow=1.0)
    assert watch.told == [("b", True), ("b", False)]
    await eventually(lambda: not naps.sleeping)
    assert watch.watch._probes == {}


async def test_one_that_cannot_be_asked_comes_back_when_it_has_no_work_left(watch, engine, eventually, naps):
    engine.status = 404
    watch.see(61)
    await eventually(lambda: naps.sleeping)
    watch.see(1, running=0.0)
    assert watch.told == [("b", True)]
    naps.wake()
    await eventually(lambda: watch.told == [("b", True), ("b", False)])


async def test_gauges_that_are_too_old_prove_nothing(watch):
    watch.see(50)
    watch.clock.advance(100)
    watch.watch.read(watch.pool, watch.pool.backends[0])
    assert watch.told == []


async def test_who_leaves_is_forgotten(watch, eventually, naps):
    watch.see(61)
    await eventually(lambda: naps.sleeping)
    watch.pool.set_members((), 0.0)
    watch.watch.sync()
    await eventually(lambda: not naps.sleeping)
    assert (watch.watch._progress, watch.watch._probes, watch.watch.hangs) == ({}, {}, {})


async def test_an_engine_that_is_gone_is_asked_on(watch, make_pool, eventually, naps):
    """Nobody listens: no answer is no token, and nothing breaks."""
    pool = make_pool({"url": "http://127.0.0.1:9", "id": "b"})
    pool.health.hung = watch._hung
    pool.set_members(merge((), specs(pool.name, pool.settings, lambda host, port: None)), 0.0)
    watch.pool = pool
    watch.see(61)
    await eventually(lambda: naps.sleeping)
    naps.wake()
    await eventually(lambda: len(naps.asked_s) == 2)
    assert watch.told == [("b", True)]


async def test_off(watch, make_pool):
    watch.pool.settings = watch.pool.settings.model_validate(
        {"backends": ["http://a"], "progress": {"stalled_after": "0s"}}
    )
    watch.see(1000)
    assert watch.told == []
