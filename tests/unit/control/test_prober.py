"""The prober's schedule and bookkeeping, against real sockets and hand-woken sleeps."""

import random

import pytest
from aiohttp import web

from llmproxy.config.model import PoolConfig
from llmproxy.control.members import merge, specs
from llmproxy.control.prober import Prober, delay_s
from llmproxy.control.resolver import Resolver
from llmproxy.core.backend import Status
from llmproxy.core.clock import ManualClock
from llmproxy.core.ports import ProbeResult


@pytest.fixture
async def engine():
    """A server whose /health answers `status`; `probes` counts."""

    class Engine:
        status = 200
        probes = 0

        async def handle(self, request):
            self.probes += 1
            return web.Response(status=self.status)

    engine = Engine()
    runner = web.ServerRunner(web.Server(engine.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield engine
    await runner.cleanup()


@pytest.fixture
async def start(naps):
    """Start a prober of a pool; stopped when the test ends."""
    started = []

    async def start(pool, clock=None, **options):
        clock = clock or ManualClock()
        rng = random.Random(3)
        prober = Prober(pool, resolver=Resolver(clock=clock, rng=rng), clock=clock, rng=rng, sleep=naps, **options)
        started.append(prober)
        await prober.start()
        return prober

    yield start
    for prober in started:
        await prober.stop()


def fill(pool):
    pool.set_members(merge(pool.backends, specs(pool.name, pool.settings, lambda host, port: None)), 0.0)


HEALTH = {"check_sleep": False, "timeout": 5}


@pytest.mark.parametrize(
    ("interval_s", "status", "middle_s"),
    [
        (10.0, Status.NEW, 1.0),
        (10.0, Status.LOADING, 1.0),
        (10.0, Status.UNHEALTHY, 2.0),
        (10.0, Status.SLEEPING, 2.0),
        (10.0, Status.HEALTHY, 10.0),
        (10.0, Status.OPEN, 10.0),
        (10.0, Status.DRAINING, 10.0),
        (0.5, Status.NEW, 0.5),
        (0.5, Status.UNHEALTHY, 0.5),
    ],
)
def test_delays_are_jittered_by_ten_percent_and_shorter_while_unwell(interval_s, status, middle_s):
    rng = random.Random(5)
    delays = [delay_s(interval_s, status, rng) for _ in range(500)]
    assert min(delays) >= 0.9 * middle_s
    assert max(delays) <= 1.1 * middle_s
    assert max(delays) - min(delays) > 0.15 * middle_s


async def test_a_newcomer_is_probed_at_once_and_then_on_schedule(engine, make_pool, start, naps, eventually):
    seen = []
    clock = ManualClock(7.0)
    pool = make_pool(engine.url, health=HEALTH)
    fill(pool)
    [backend] = pool.backends
    await start(pool, clock, on_result=lambda *told: seen.append(told))
    await eventually(lambda: naps.sleeping)
    assert pool.health.probes == [(backend.id, ProbeResult.OK, 7.0)]
    assert seen == [(backend, ProbeResult.OK, 0.0)]
    clock.advance(10)
    naps.wake()
    await eventually(lambda: len(naps.asked_s) == 2)
    assert pool.health.probes[1:] == [(backend.id, ProbeResult.OK, 17.0)]
    assert all(9 <= delay <= 11 for delay in naps.asked_s)


async def test_it_hurries_until_the_engine_has_loaded(engine, make_pool, start, naps, eventually):
    engine.status = 503
    pool = make_pool(engine.url, health=HEALTH)
    fill(pool)
    await start(pool)
    await eventually(lambda: naps.sleeping)
    engine.status = 200
    naps.wake()
    await eventually(lambda: len(naps.asked_s) == 2)
    assert pool.health.results_of(pool.backends[0]) == [ProbeResult.LOADING, ProbeResult.OK]
    assert naps.asked_s[0] <= 1.1
    assert naps.asked_s[1] >= 9
    assert pool.health.reasons == ["status 503", "well"]


async def test_membership_is_followed(engine, make_pool, start, naps, eventually):
    pool = make_pool({"url": engine.url, "id": "old"}, health=HEALTH)
    fill(pool)
    [old] = pool.backends
    prober = await start(pool)
    await eventually(lambda: naps.sleeping == 1)
    pool.settings = PoolConfig.model_validate({"backends": [{"url": engine.url, "id": "new"}], "health": HEALTH})
    fill(pool)
    prober.sync()
    await eventually(lambda: len(naps.asked_s) == 2)
    naps.wake()
    await eventually(lambda: len(naps.asked_s) == 3)
    assert pool.health.results_of(old) == [ProbeResult.OK], "a leaver is left alone"
    assert pool.health.results_of(pool.backends[0]) == [ProbeResult.OK] * 2


async def test_sync_disturbs_nobody_who_stays(engine, make_pool, start, naps, eventually):
    pool = make_pool(engine.url, health=HEALTH)
    fill(pool)
    prober = await start(pool)
    await eventually(lambda: naps.sleeping)
    prober.sync()
    assert naps.sleeping == 1
    naps.wake()
    await eventually(lambda: len(naps.asked_s) == 2)
    assert engine.probes == 2


async def test_new_health_settings_count_at_once(engine, make_pool, start, naps, eventually):
    pool = make_pool(engine.url, health=HEALTH)
    fill(pool)
    prober = await start(pool)
    await eventually(lambda: naps.sleeping)
    pool.settings = PoolConfig.model_validate({"backends": [engine.url], "health": HEALTH | {"interval": "500ms"}})
    prober.sync()
    await eventually(lambda: len(naps.asked_s) == 2)
    assert naps.asked_s[1] <= 0.55


async def test_a_leaver_whose_probe_is_under_way_is_not_reported(engine, make_pool, start, naps, eventually):
    pool = make_pool(engine.url, health=HEALTH)
    fill(pool)
    await start(pool)
    pool.backends = ()
    await eventually(lambda: naps.sleeping)
    assert engine.probes == 1
    assert pool.health.probes == []


async def test_the_loop_survives_what_it_reports_to(engine, make_pool, start, naps, eventually, caplog):
    def explode(backend, result, took_s):
        raise RuntimeError("no")

    pool = make_pool(engine.url, health=HEALTH)
    fill(pool)
    await start(pool, on_result=explode)
    await eventually(lambda: naps.sleeping)
    naps.wake()
    await eventually(lambda: len(naps.asked_s) == 2)
    assert len(pool.health.probes) == 2
    assert "probing" in caplog.text


async def test_nothing_is_reported_after_stop(engine, make_pool, start, naps, eventually):
    pool = make_pool(engine.url, health=HEALTH)
    fill(pool)
    prober = await start(pool)
    await eventually(lambda: naps.sleeping)
    await prober.stop()
    naps.wake()
    prober.sync()
    assert len(pool.health.probes) == 1
    assert engine.probes == 1
