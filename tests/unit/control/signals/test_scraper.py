"""The scraper against real sockets: schedules, failures of every kind, and that what is old is unknown."""

import asyncio
import random

import pytest
from aiohttp import web

from llmproxy.control.resolver import Resolver
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.control.signals.scraper import PATIENCE, RARELY_S, Scraper, delay_s
from llmproxy.control.signals.source import SourceError
from llmproxy.core.backend import Gauges, GpuGauges, Status

PAGE = 'vllm:num_requests_running{model_name="m"} %d\nvllm:num_requests_waiting{model_name="m"} 0\n'
SIGNALS = {"interval": "1s", "timeout": "900ms", "max_age": "5s"}
PATIENT = {"interval": "100s", "timeout": "90s", "max_age": "500s"}
"""Where sockets and threads take real time, which a busy machine stretches."""


@pytest.fixture
async def start(naps, clock):
    """Start a scraper of one pool; stopped when the test ends."""
    started = []

    async def start(pool, **options):
        rng = random.Random(3)
        resolver = Resolver(clock=clock, rng=rng)
        scraper = Scraper(
            lambda: {pool.name: pool}, resolver=resolver, clock=clock, rng=rng, **{"sleep": naps, **options}
        )
        started.append(scraper)
        await scraper.start()
        return scraper

    yield start
    for scraper in started:
        await scraper.stop()


@pytest.fixture
def rounds(naps, clock, eventually):
    """Let every backend be read once more, `seconds` later."""

    async def rounds(count=1, seconds=1.0):
        for _ in range(count):
            await eventually(lambda: naps.sleeping)
            before = len(naps.asked_s)
            clock.advance(seconds)
            naps.wake()
            await eventually(lambda: len(naps.asked_s) > before and naps.sleeping)  # noqa: B023

    return rounds


class Scripted:
    """A source that says what a test wants of it, and how often it was asked."""

    is_optional = False

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0
        self.over = False

    def of(self, backend, settings, means):
        return self

    async def read(self, now):
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer(now) if callable(answer) else answer


def running(now):
    return Gauges(now, running=1.0)


# -- what is read ------------------------------------------------------------------------------------------------------


async def test_gauges_are_read_at_once_and_then_on_schedule(site, make_pool, fill, start, rounds, naps, clock):
    site.answers["/metrics"] = PAGE % 3
    pool = make_pool({"url": site.url, "id": "b"}, signals=PATIENT)
    [backend] = fill(pool)
    scraper = await start(pool, names=lambda backend: ("m", "an-adapter"))
    await rounds(seconds=100)
    first = backend.gauges
    assert (first.running, first.waiting, first.kv_usage, first.models) == (3.0, 0.0, None, ("m", "an-adapter"))
    assert (first.at, first.max_age_s) == (1100.0, 500.0)
    site.answers["/metrics"] = PAGE % 4
    await rounds(seconds=100)
    assert backend.gauges is not first
    assert (first.running, backend.gauges.running, backend.gauges.at) == (3.0, 4.0, 1200.0)
    assert all(90 <= delay <= 110 for delay in naps.asked_s)
    assert scraper.counts == {(pool.name, "b", "engine", "ok"): 3}


async def test_one_connection_does_for_all_reads(site, make_pool, fill, start, rounds):
    site.answers["/metrics"] = PAGE % 1
    pool = make_pool(site.url, signals=PATIENT)
    fill(pool)
    await start(pool)
    await rounds(4, seconds=100)
    assert len(site.requests) >= 5
    assert len(site.connections) == 1


async def test_the_path_and_the_key_are_the_pools(site, make_pool, fill, start, rounds):
    site.answers["/prometheus/metrics"] = "trtllm_num_requests_running 2\n"
    pool = make_pool(site.url, upstream_key="secret", signals=PATIENT | {"path": "/prometheus/metrics"})
    [backend] = fill(pool)
    await start(pool)
    await rounds(seconds=100)
    assert backend.gauges.running == 2.0
    assert site.requests[0].headers["Authorization"] == "Bearer secret"


async def test_the_key_is_for_the_backend_alone(site, make_pool, fill, start, rounds):
    site.answers["/metrics"] = PAGE % 1
    site.answers["/dcgm"] = 'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 50\n'
    site.answers["/gpus"] = '{"gpus": [{"index": 0, "utilization": 0.25}]}'
    pool = make_pool(
        {"url": site.url, "gpu": {"dcgm": site.url + "/dcgm", "device": 0}},
        {"url": site.url + "/", "id": "other", "gpu": {"agent": site.url, "device": 0}},
        upstream_key="secret",
        signals=PATIENT,
    )
    first, second = fill(pool)
    await start(pool)
    await rounds(seconds=100)
    assert (first.gauges.gpu.utilization, second.gauges.gpu.utilization) == (0.5, 0.25)
    assert first.gauges.running == 1.0
    sent = {(request.path, "Authorization" in request.headers) for request in site.requests}
    assert sent == {("/metrics", True), ("/dcgm", False), ("/gpus", False)}


async def test_several_sources_make_one_set_of_gauges(make_pool, fill, start, rounds):
    pool = make_pool("http://127.0.0.1:9", signals=SIGNALS)
    [backend] = fill(pool)
    gpu = Scripted(lambda now: Gauges(now, gpu=GpuGauges(now, utilization=0.5)))
    broken = Scripted(RuntimeError("a fault in a source"))
    await start(pool, kinds={"engine": Scripted(running), "gpu": gpu, "broken": broken})
    await rounds(2)
    assert (backend.gauges.running, backend.gauges.gpu.utilization) == (1.0, 0.5)
    assert broken.asked >= 2


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_failed_read_changes_nothing_but_the_age(make_pool, fill, start, rounds, clock):
    pool = make_pool("http://127.0.0.1:9", signals=SIGNALS)
    [backend] = fill(pool)
    scraper = await start(
        pool,
        kinds={
            "engine": Scripted(running, SourceError("no")),
        },
    )
    await rounds(4)
    assert backend.gauges == Gauges(1000.0, running=1.0, max_age_s=5.0)
    assert backend.known(clock()) is backend.gauges
    await rounds(2)
    assert clock() == 1006.0
    assert backend.known(clock()) is None
    assert scraper.counts[pool.name, backend.id, "engine", "failed"] >= 5


async def test_a_killed_engine_and_one_that_comes_back(site, make_pool, fill, start, rounds, clock):
    site.answers["/metrics"] = PAGE % 1
    pool = make_pool(site.url, signals=PATIENT)
    [backend] = fill(pool)
    await start(pool)
    await rounds(seconds=100)
    await site.stop()
    await rounds(6, seconds=100)
    assert backend.known(clock()) is None
    await site.start(site.port)
    await rounds(2, seconds=100)
    assert backend.known(clock()).running == 1.0


async def test_a_hanging_engine_is_given_up_and_others_are_read_meanwhile(site, make_pool, fill, start, eventually):
    hung = asyncio.Event()

    async def hang(request):
        hung.set()
        await asyncio.sleep(3600)

    site.answers["/metrics"] = hang
    site.answers["/well/metrics"] = PAGE % 2
    pool = make_pool(
        {"url": site.url, "id": "hangs"},
        {"url": site.url + "/well", "id": "well"},
        signals={"interval": "20ms", "timeout": "10ms", "max_age": "5s"},
    )
    hangs, well = fill(pool)
    scraper = await start(pool, sleep=asyncio.sleep)
    await eventually(lambda: scraper.counts[pool.name, "hangs", "engine", "timeout"] >= 3)
    await eventually(lambda: scraper.counts[pool.name, "well", "engine", "ok"] >= 3)
    assert hung.is_set()
    assert hangs.gauges is None
    assert well.gauges.running == 2.0


@pytest.mark.parametrize(
    "answer",
    [
        "<html>no metrics here</html>",
        "\x00\x01\x02",
        "node_load1 0.5\n",
        "vllm:num_requests_running{ nonsense\n",
        "",
        500,
        404,
        302,
        401,
    ],
)
async def test_garbage_is_no_gauge(site, make_pool, fill, start, rounds, answer):
    site.answers["/metrics"] = answer
    pool = make_pool(site.url, signals=PATIENT)
    [backend] = fill(pool)
    scraper = await start(pool)
    await rounds(2, seconds=100)
    assert backend.gauges is None
    assert scraper.counts[pool.name, backend.id, "engine", "failed"] >= 2


async def test_an_endless_page_is_cut_off(site, make_pool, fill, start, eventually):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"some_metric 1\n" * 4096)

    site.answers["/metrics"] = endless
    pool = make_pool(site.url, signals=PATIENT)
    [backend] = fill(pool)
    scraper = await start(pool)
    await eventually(lambda: scraper.counts[pool.name, backend.id, "engine", "failed"] == 1)
    assert backend.gauges is None


async def test_a_slow_page_is_read_when_it_is_in_time(site, make_pool, fill, start, eventually):
    release = asyncio.Event()

    async def slow(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write((PAGE % 7).encode())
        await release.wait()
        return response

    site.answers["/metrics"] = slow
    pool = make_pool(site.url, signals=PATIENT)
    [backend] = fill(pool)
    await start(pool)
    await eventually(lambda: site.requests)
    assert backend.gauges is None
    release.set()
    await eventually(lambda: backend.gauges is not None)
    assert backend.gauges.running == 7.0


async def test_who_has_nothing_to_say_is_asked_ever_less_often(make_pool, fill, start, rounds):
    pool = make_pool("http://127.0.0.1:9", signals=SIGNALS)
    fill(pool)
    silent = Scripted(SourceError("status 404", absent=True))
    failing = Scripted(SourceError("status 500"))
    await start(pool, kinds={"silent": silent, "failing": failing})
    await rounds(PATIENCE - 1)
    assert silent.asked == PATIENCE
    await rounds(30)
    assert PATIENCE + 3 <= silent.asked <= PATIENCE + 6
    assert failing.asked == PATIENCE + 30
    await rounds(200)
    assert silent.asked <= PATIENCE + 6 + 200 / RARELY_S + 1


async def test_failures_are_reported_once_and_so_is_their_end(make_pool, fill, start, rounds, caplog):
    caplog.set_level("INFO", "llmproxy.control.signals")
    pool = make_pool({"url": "http://127.0.0.1:9", "id": "b"}, signals=SIGNALS)
    [backend] = fill(pool)
    backend.status = Status.HEALTHY
    bad = SourceError("the cable is out")
    quiet = Scripted(SourceError("told elsewhere", reported=True))
    await start(pool, kinds={"gpu": Scripted(running, *[bad] * 12, running), "quiet": quiet})
    await rounds(5)
    assert caplog.records == [], "what was read before still counts"
    await rounds(5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "backend b: no gpu gauges (the cable is out)" in caplog.text
    await rounds(4)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_of_an_engine_that_is_down_only_the_prober_speaks(make_pool, fill, start, rounds, caplog):
    caplog.set_level("INFO", "llmproxy.control.signals")
    pool = make_pool("http://127.0.0.1:9", signals=PATIENT)
    [backend] = fill(pool)
    await start(pool)
    await rounds(3, seconds=100)
    assert caplog.records == []
    backend.status = Status.HEALTHY
    await rounds(3, seconds=100)
    assert [record.levelname for record in caplog.records] == ["INFO"]


async def test_no_driver_on_this_host_is_reported_once_however_many_gpus(
    nvml, make_pool, fill, start, rounds, caplog, clock
):
    nvml.absent = True
    pool = make_pool(*({"url": f"http://127.0.0.1:9/{i}", "gpu": {"device": i % 2}} for i in range(4)), signals=PATIENT)
    backends = fill(pool)
    await start(pool, nvml=Nvml(clock))
    await rounds(10, seconds=100)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "traffic goes on" in caplog.text
    nvml.absent = False
    await rounds(2, seconds=100)
    assert [backend.gauges.gpu.utilization for backend in backends] == [0.4, 0.9, 0.4, 0.9]


# -- membership and settings -------------------------------------------------------------------------------------------


async def test_membership_is_followed(make_pool, fill, start, rounds):
    source = Scripted(running)
    pool = make_pool({"url": "http://a", "id": "a"}, signals=SIGNALS)
    [old] = fill(pool)
    scraper = await start(pool, kinds={"engine": source})
    await rounds()
    kept = old.gauges
    [new] = fill(pool, {"backends": [{"url": "http://b", "id": "b"}], "signals": SIGNALS})
    scraper.sync()
    await rounds(2)
    assert old.gauges is kept
    assert new.gauges.running == 1.0
    assert {key[1] for key in scraper.counts} == {"b"}


async def test_sync_disturbs_nobody_who_stays(make_pool, fill, start, rounds, naps):
    pool = make_pool("http://a", signals=SIGNALS)
    fill(pool)
    scraper = await start(pool, kinds={"engine": Scripted(running)})
    await rounds()
    tasks = asyncio.all_tasks()
    scraper.sync()
    assert asyncio.all_tasks() == tasks
    assert naps.sleeping == 1


async def test_new_settings_count_at_once_and_zero_is_off(make_pool, fill, start, rounds, naps, eventually):
    source = Scripted(running)
    settings = {"backends": ["http://a"]}
    pool = make_pool("http://a", signals=SIGNALS)
    [backend] = fill(pool)
    scraper = await start(pool, kinds={"engine": source})
    await rounds()
    assert fill(pool, settings | {"signals": {"interval": "10s"} | {"max_age": "30s"}}) == (backend,)
    scraper.sync()
    await rounds()
    assert naps.asked_s[-1] >= 9
    assert backend.gauges.max_age_s == 30.0
    fill(pool, settings | {"signals": {"interval": "0s"}})
    scraper.sync()
    asked = source.asked
    await eventually(lambda: not naps.sleeping, "the end of the last task")
    assert source.asked == asked


async def test_what_arrives_after_the_backend_left_is_dropped(make_pool, fill, start, eventually):
    answering = asyncio.Event()

    class Late(Scripted):
        async def read(self, now):
            self.asked += 1
            try:
                await answering.wait()
            finally:
                self.over = True
            return running(now)

    source = Late()
    pool = make_pool("http://a", signals=PATIENT)
    [backend] = fill(pool)
    told = []
    scraper = await start(pool, kinds={"engine": source}, on_read=lambda *args: told.append(args))
    await eventually(lambda: source.asked)
    pool.set_members((), 0.0)
    scraper.sync()
    answering.set()
    await eventually(lambda: source.over)
    assert backend.gauges is None
    assert told == []


async def test_who_wants_to_know_is_told_after_each_new_reading(make_pool, fill, start, rounds):
    told = []
    pool = make_pool("http://a", signals=SIGNALS)
    [backend] = fill(pool)
    source = Scripted(running, SourceError("no"), running)

    def on_read(pool, backend):
        told.append((pool.name, backend, backend.gauges.at))

    await start(pool, kinds={"engine": source}, on_read=on_read)
    await rounds(2)
    assert told == [(pool.name, backend, 1000.0), (pool.name, backend, 1002.0)]


def test_delays_are_jittered_by_ten_percent_and_never_negative():
    rng = random.Random(5)
    delays = [delay_s(1.0, 0.0, rng) for _ in range(500)]
    assert 0.9 <= min(delays) < 0.95
    assert 1.05 < max(delays) <= 1.1
    assert delay_s(1.0, 0.4, random.Random(5)) == pytest.approx(delays[0] - 0.4)
    assert delay_s(1.0, 7.0, rng) == 0.0


async def test_a_proxy_with_many_backends_reads_them_all(site, make_pool, fill, start, eventually):
    site.answers["/metrics"] = PAGE % 1
    pool = make_pool(
        *({"url": site.url, "id": f"b{i}"} for i in range(64)),
        signals=PATIENT,
    )
    backends = fill(pool)
    await start(pool)
    await eventually(lambda: all(backend.gauges is not None for backend in backends))
