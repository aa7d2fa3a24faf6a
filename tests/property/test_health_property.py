"""Health under any sequence of events: one trial at a time, the ejection cap, nobody stuck, candidates that may be."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmproxy.core.backend import Backend, BackendSpec, Status
from llmproxy.core.outcome import Outcome
from llmproxy.core.ports import ProbeResult
from llmproxy.policy.health.breaker import State
from llmproxy.policy.health.registry import Health
from llmproxy.policy.health.settings import HealthSettings

NEVER_TRIED = {Status.NEW, Status.LOADING, Status.SLEEPING, Status.DRAINING}
FAILURES = [outcome for outcome in Outcome if outcome.is_failure]


class HealthMachine(RuleBasedStateMachine):
    """Requests run at the same time: `chosen` now, `observe` whenever."""

    @initialize(count=st.integers(1, 6), percent=st.sampled_from([0, 34, 50, 100]), seed=st.integers(0, 99))
    def start(self, count, percent, seed):
        self.now = 0.0
        self.percent = percent
        self.rng = random.Random(seed)
        self.health = Health(HealthSettings(max_ejected_percent=percent, failures=2), self.rng)
        self.added = 0
        self.members = []
        for _ in range(count):
            self.join(known=True)
        self.running = []

    @rule(known=st.booleans())
    def join(self, known):
        if len(self.members) < 8:
            newcomer = Backend(BackendSpec(id=f"b{self.added}", url=f"http://10.0.0.{self.added}:8000"))
            self.added += 1
            self.members.append(newcomer)
            self.health.set_members(self.members, self.now)
            assert newcomer.status is Status.NEW
            if known:
                self.health.probed(newcomer, ProbeResult.OK, self.now)

    @precondition(lambda self: len(self.members) > 1)
    @rule(index=st.integers(0, 7))
    def leave(self, index):
        del self.members[index % len(self.members)]
        self.health.set_members(self.members, self.now)

    @rule(index=st.integers(0, 7))
    def send(self, index):
        candidates = self.health.candidates(self.now)
        if candidates:
            backend = candidates[index % len(candidates)]
            self.running.append((backend, self.health.chosen(backend, self.now)))

    @precondition(lambda self: self.running)
    @rule(
        index=st.integers(0, 99),
        outcome=st.one_of(st.sampled_from(list(Outcome)), st.sampled_from(FAILURES)),
    )
    def end(self, index, outcome):
        backend, trial = self.running.pop(index % len(self.running))
        ejected = self.ejected
        before = self.breaker(backend)
        self.health.observe(backend, outcome, self.now, trial=trial)
        if before is State.CLOSED and self.breaker(backend) is State.OPEN:
            assert ejected < max(1, len(self.members) * self.percent // 100)

    @rule(index=st.integers(0, 7), result=st.sampled_from(ProbeResult))
    def probe(self, index, result):
        self.health.probed(self.members[index % len(self.members)], result, self.now)

    @rule(index=st.integers(0, 7), drain=st.booleans())
    def drain(self, index, drain):
        backend = self.members[index % len(self.members)]
        (self.health.drain if drain else self.health.undrain)(backend, self.now)

    @rule(seconds=st.floats(0.0, 200.0))
    def pass_time(self, seconds):
        self.now += seconds

    def breaker(self, backend):
        return self.health.breaker(backend, self.now)

    @property
    def ejected(self):
        return sum(self.breaker(backend) is not State.CLOSED for backend in self.members)

    @invariant()
    def one_trial_at_a_time(self):
        for backend in self.members:
            trials = sum(trial for other, trial in self.running if other is backend)
            assert trials <= 1
            if trials:
                assert self.breaker(backend) is State.HALF_OPEN

    @invariant()
    def a_trial_that_is_not_running_can_be_taken(self):
        for backend in self.members:
            if self.breaker(backend) is State.HALF_OPEN and (backend, True) not in self.running:
                assert not self.health._members[backend].breaker.trial_out

    @invariant()
    def candidates_may_be_tried(self):
        candidates = self.health.candidates(self.now)
        assert set(candidates) <= set(self.members)
        assert not NEVER_TRIED & {backend.status for backend in candidates}
        if any(backend.status is Status.HEALTHY for backend in self.members):
            assert {backend.status for backend in candidates} <= {Status.HEALTHY, Status.HALF_OPEN}

    @invariant()
    def weights_are_a_part_and_never_nothing(self):
        for backend in self.members:
            assert 0.0 < backend.weight <= backend.spec.weight

    @invariant()
    def the_cache_says_what_working_it_out_again_says(self):
        before = tuple(self.health.candidates(self.now))
        self.health._refresh(self.now)
        assert tuple(self.health.candidates(self.now)) == before


TestHealthMachine = HealthMachine.TestCase
TestHealthMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
