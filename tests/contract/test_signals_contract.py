"""What every source of signals keeps to, ours and third parties' alike: run over the registry, on real sockets."""

import asyncio
import random
import shutil
from dataclasses import fields

import aiohttp
import pytest
from aiohttp import web

from llmproxy.config.model import PoolConfig
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.control.signals.registry import all_sources, sources_of
from llmproxy.control.signals.source import Means, SourceError
from llmproxy.core.backend import Backend, Gauges, GpuGauges
from llmproxy.core.clock import ManualClock
from tests.harness.nvml import NvmlDouble, compiled

KINDS = all_sources()
NO_ANSWERS = (SourceError, OSError, aiohttp.ClientError)
PAGES = {
    "/metrics": "vllm:num_requests_running 2\n",
    "/gpus": '{"gpus": [{"index": 0, "utilization": 0.5}]}',
    "/dcgm": 'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 50\n',
}


class Fleet:
    """A server of all the pages, and backends that name it in every way there is."""

    def __init__(self, nvml):
        self.nvml = nvml
        self.answer = None
        self.handling = 0

    async def _handle(self, request):
        self.handling += 1
        if self.answer is not None:
            return await self.answer()
        return web.Response(text=PAGES[request.path])

    async def __aenter__(self):
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        clock = ManualClock()
        self._resolver = Resolver(clock=clock, rng=random.Random(1))
        self._http = ProbeClient(self._resolver)
        self.means = Means(await self._http.__aenter__(), Nvml(clock))
        return self

    async def __aexit__(self, *error):
        self.means.nvml.close()
        await self._http.__aexit__(None, None, None)
        await self._resolver.stop()
        await self._runner.cleanup()

    def sources(self, name, gpu=None):
        """The sources of this kind that a backend with this GPU has."""
        entry = {"url": self.url} | ({"gpu": gpu} if gpu else {})
        settings = PoolConfig.model_validate({"backends": [entry]})
        backend = Backend(settings.backends[0].spec("pool"))
        return list(sources_of({name: KINDS[name]}, backend, settings, self.means).values())

    def source(self, name):
        """The one source of this kind, for a backend that has it."""
        gpus = [None, {"device": 0}, {"agent": self.url, "device": 0}, {"dcgm": self.url + "/dcgm", "device": 0}]
        return next(source for gpu in gpus for source in self.sources(name, gpu))

    async def nothing(self):
        """Neither the server nor the driver answers."""
        self.answer = self._never
        self.nvml.stick()

    async def _never(self):
        await asyncio.sleep(3600)


@pytest.fixture
async def fleet(tmp_path, monkeypatch):
    library = compiled(tmp_path)
    copy = tmp_path / f"copy-{library.name}"
    shutil.copy(library, copy)
    async with Fleet(NvmlDouble(copy, monkeypatch)) as fleet:
        yield fleet
        fleet.nvml.stick(False)


@pytest.fixture(params=list(KINDS))
def name(request):
    return request.param


def test_ours_are_all_there():
    assert {"engine", "nvml", "agent", "dcgm"} <= KINDS.keys()


async def test_reads_gauges_as_of_the_time_it_is_told(fleet, name):
    gauges = await fleet.source(name).read(12.5)
    assert type(gauges) is Gauges
    assert gauges.at == 12.5
    said = [field.name for field in fields(Gauges) if getattr(gauges, field.name) != getattr(Gauges(12.5), field.name)]
    assert said, "it says something"
    assert gauges.gpu is None or (type(gauges.gpu) is GpuGauges and gauges.gpu.at <= 12.5)


async def test_may_be_read_again_and_again(fleet, name):
    source = fleet.source(name)
    assert [(await source.read(float(at))).at for at in range(3)] == [0.0, 1.0, 2.0]


async def test_is_there_only_for_backends_that_have_it(fleet, name):
    """No backend without a GPU has a GPU's source, and nobody reads the same GPU in two ways."""
    assert bool(fleet.sources(name)) is KINDS[name].is_optional
    ways = [{"device": 0}, {"agent": fleet.url, "device": 0}, {"dcgm": fleet.url + "/dcgm", "device": 0}]
    assert sum(bool(fleet.sources(name, gpu)) for gpu in ways) == (3 if KINDS[name].is_optional else 1)


@pytest.mark.parametrize("status", [204, 302, 400, 404, 500, 503])
async def test_says_so_when_there_is_nothing_to_read(fleet, name, status):
    async def refuse():
        return web.Response(status=status)

    fleet.answer = refuse
    fleet.nvml.refuse(9)
    with pytest.raises(NO_ANSWERS):
        await fleet.source(name).read(0.0)


@pytest.mark.parametrize("body", [b"", b"\x00\xff\n{", b"<html>", b"[]", b'{"gpus": {}}', b"a 1\n"])
async def test_says_so_when_what_it_reads_is_nonsense(fleet, name, body):
    async def garbage():
        return web.Response(body=body)

    fleet.answer = garbage
    fleet.nvml.count(0)
    with pytest.raises(NO_ANSWERS):
        await fleet.source(name).read(0.0)


async def test_can_be_given_up_on_at_any_time_and_read_later(fleet, name):
    source = fleet.source(name)
    await fleet.nothing()
    for _ in range(3):
        with pytest.raises((*NO_ANSWERS, TimeoutError)):
            async with asyncio.timeout(0.02):
                await source.read(0.0)
    fleet.answer = None
    fleet.nvml.stick(False)
    async with asyncio.timeout(10):
        while True:
            try:
                gauges = await source.read(1.0)
                break
            except SourceError:
                await asyncio.sleep(0.002)
    assert gauges.at == 1.0
