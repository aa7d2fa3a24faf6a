import random

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.clock import ManualClock
from llmproxy.core.outcome import Outcome
from llmproxy.core.ports import ProbeResult
from llmproxy.policy.health.registry import Health
from llmproxy.policy.health.settings import HealthSettings


class Pool:
    """A registry with its members and a clock, and short ways to say what happens."""

    def __init__(self, count, **settings):
        self.clock = ManualClock(1000.0)
        self.changes = []
        self.reasons = []
        self.health = Health(
            HealthSettings(**settings),
            random.Random(3),
            self._changed,
        )
        self.members = [Backend(BackendSpec(id=f"b{i}", url=f"http://10.0.0.{i}:8000")) for i in range(count)]
        self.health.set_members(self.members, self.clock())

    def _changed(self, backend, before, after, why):
        self.changes.append((backend.id, before.value, after.value))
        self.reasons.append(why)

    def up(self):
        """Every member's first good probe."""
        self.probe(ProbeResult.OK)
        self.changes.clear()
        self.reasons.clear()
        return self

    def probe(self, result, *which, times=1):
        for _ in range(times):
            for index in which or range(len(self.members)):
                self.health.probed(self.members[index], result, self.clock())

    def send(self, index, outcome, times=1, **said):
        """Whole attempts, one after the other. Returns whether the last was a trial."""
        for _ in range(times):
            trial = self.health.chosen(self.members[index], self.clock())
            self.health.observe(self.members[index], outcome, self.clock(), trial=trial, **said)
        return trial

    def kill(self, index):
        """Passively: as many failures as open a breaker."""
        self.send(index, Outcome.REFUSED, times=5)

    @property
    def candidates(self):
        return [backend.id for backend in self.health.candidates(self.clock())]

    def status(self, index):
        return self.health.status(self.members[index], self.clock()).value


@pytest.fixture
def pool():
    return Pool
