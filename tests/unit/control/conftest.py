"""What the control tests share. The health registry here is a recording fake of the `HealthRegistry` port (the real
one has its own tests): it keeps what it was told and draws the simplest conclusion. Sockets are real."""

import asyncio
import time

import pytest

from llmproxy.config.model import PoolConfig
from llmproxy.core.backend import Status
from llmproxy.core.pool import Pool
from llmproxy.core.ports import ProbeResult

_CONCLUSION = {
    ProbeResult.OK: Status.HEALTHY,
    ProbeResult.REFUSED: Status.UNHEALTHY,
    ProbeResult.LOADING: Status.LOADING,
    ProbeResult.SLEEPING: Status.SLEEPING,
    ProbeResult.FAILED: Status.UNHEALTHY,
}


class RecordingHealth:
    """`probes` is what `probed` was told, `reasons` with which words, `memberships` what `set_members` was."""

    def __init__(self):
        self.probes = []
        self.reasons = []
        self.memberships = []
        self.drained = set()

    def set_members(self, backends, now):
        self.memberships.append((tuple(backend.id for backend in backends), now))
        self.drained &= set(backends)

    def probed(self, backend, result, now, reason=""):
        self.probes.append((backend.id, result, now))
        self.reasons.append(reason)
        backend.status = Status.DRAINING if backend in self.drained else _CONCLUSION[result]

    def drain(self, backend, now):
        self.drained.add(backend)
        backend.status = Status.DRAINING

    def results_of(self, backend):
        return [result for id, result, _ in self.probes if id == backend.id]


class RecordingRouting:
    """Knows only whom it was told to forget."""

    def __init__(self):
        self.forgotten = []

    def forget(self, backend):
        self.forgotten.append(backend.id)


class Naps:
    """Stands for `asyncio.sleep`: notes how long each sleeper meant to sleep, and wakes them when told to."""

    def __init__(self):
        self.asked_s = []
        self._sleepers = []

    async def __call__(self, seconds):
        self.asked_s.append(seconds)
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        await sleeper

    @property
    def sleeping(self):
        return sum(not sleeper.done() for sleeper in self._sleepers)

    def wake(self):
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)


@pytest.fixture
def naps():
    return Naps()


@pytest.fixture
def make_pool():
    def make(*backends, name="llama", **settings):
        config = PoolConfig.model_validate({"backends": list(backends), **settings})
        return Pool(name, config, RecordingRouting(), RecordingHealth(), None, None)

    return make


@pytest.fixture
def eventually():
    """Wait for a condition; give up after a deadline that only a defect reaches."""

    async def wait(condition, what="the condition", deadline_s=10.0):
        until = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < until, f"{what} never came true"
            await asyncio.sleep(0.002)

    return wait
