"""What the tests of the signals share: servers on real sockets, what sources read with, an NVML double."""

import random
import shutil

import pytest

from llmproxy.config.model import PoolConfig
from llmproxy.control.members import merge, specs
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.control.signals.source import Means
from llmproxy.core.clock import ManualClock
from tests.harness.nvml import NvmlDouble, compiled
from tests.harness.pages import Pages


@pytest.fixture
async def site():
    site = Pages()
    await site.start()
    yield site
    await site.stop()


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
async def means(clock):
    """What sources read with, on real sockets."""
    resolver = Resolver(clock=clock, rng=random.Random(1))
    nvml = Nvml(clock)
    async with ProbeClient(resolver, keep_s=4.0) as http:
        yield Means(http, nvml)
    nvml.close()
    await resolver.stop()


@pytest.fixture
def fill():
    """Give a pool the members that its settings say."""

    def fill(pool, settings=None):
        if settings is not None:
            pool.settings = PoolConfig.model_validate(settings)
        pool.set_members(merge(pool.backends, specs(pool.name, pool.settings, lambda host, port: None)), 0.0)
        return pool.backends

    return fill


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_library, tmp_path, monkeypatch):
    """A library double of this test's own, with its own state."""
    copy = tmp_path / nvml_library.name
    shutil.copy(nvml_library, copy)
    double = NvmlDouble(copy, monkeypatch)
    yield double
    double.stick(False)
