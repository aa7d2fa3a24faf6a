"""The health of one pool's backends, all parts together: implements `HealthRegistry` of `llmproxy.core.ports`."""

import random
from collections.abc import Callable, Sequence

from llmproxy.core.backend import Backend, Status
from llmproxy.core.outcome import Outcome
from llmproxy.core.ports import ProbeResult
from llmproxy.policy.health.breaker import NEVER, Breaker, State
from llmproxy.policy.health.busy import busy_until
from llmproxy.policy.health.ejection import may_eject
from llmproxy.policy.health.probe_state import ProbeState
from llmproxy.policy.health.settings import HealthSettings
from llmproxy.policy.health.slow_start import SlowStart

OnChange = Callable[[Backend, Status, Status, str], None]
"""Called with a member, its status before, its status now and why; never in the middle of a change."""

_TIME_OUT_OVER = "its time out is over"


class _Member:
    """What is known of one backend."""

    __slots__ = ("breaker", "busy_until", "draining", "hung", "probes", "recovering", "slow_start")

    def __init__(self, settings: HealthSettings, rng: random.Random) -> None:
        self.probes = ProbeState()
        self.breaker = Breaker(settings, rng)
        self.slow_start = SlowStart()
        self.draining = False
        self.hung = False
        """It has work and gets nowhere with it, whatever its probes say."""
        self.recovering = False
        """It has been out for failing and has not had work since."""
        self.busy_until = 0.0

    @property
    def label(self) -> Status:
        if self.draining:
            return Status.DRAINING
        label = self.probes.label
        if label is Status.HEALTHY and self.hung:
            return Status.UNHEALTHY
        if label is Status.HEALTHY and self.breaker.state is not State.CLOSED:
            return Status.OPEN if self.breaker.state is State.OPEN else Status.HALF_OPEN
        return label

    def is_eligible(self, status: Status) -> bool:
        return status is Status.HEALTHY or (status is Status.HALF_OPEN and not self.breaker.trial_out)

    def merely_seems_bad(self, status: Status) -> bool:
        """Whether it may be tried when nobody is eligible."""
        return (status is Status.UNHEALTHY and self.probes.proven) or status in (Status.OPEN, Status.HALF_OPEN)

    def advance(self, status: Status, now: float, slow_start_s: float) -> float:
        """Bring slow start up to date. Returns what part of the weight counts."""
        if self.probes.out or self.hung or self.breaker.state is not State.CLOSED:
            self.recovering = True
            self.slow_start.stop()
        elif self.recovering and status is Status.HEALTHY:
            self.recovering = False
            self.slow_start.begin(now, slow_start_s)
        return self.slow_start.factor(now)


class Health:
    """One pool's registry. `on_change` may be set at any time."""

    def __init__(self, settings: HealthSettings, rng: random.Random, on_change: OnChange | None = None) -> None:
        self.on_change = on_change
        self._settings = settings
        self._rng = rng
        self._members: dict[Backend, _Member] = {}
        self._candidates: tuple[Backend, ...] = ()
        self._due = NEVER

    # -- for every request -----------------------------------------------------------------------------------------

    def candidates(self, now: float) -> Sequence[Backend]:
        """Eligible backends in the pool's order; in panic, those that merely seem bad."""
        if now >= self._due:
            self._refresh(now)
        return self._candidates

    def chosen(self, backend: Backend, now: float) -> bool:
        """A request goes there. True when it is the trial of a half-open breaker; hand that to `observe`."""
        if backend.status is Status.HEALTHY:
            return False
        if now >= self._due:
            self._refresh(now)
        member = self._members.get(backend)
        if member is None or not member.breaker.take_trial():
            return False
        self._refresh(now)
        return True

    def observe(
        self,
        backend: Backend,
        outcome: Outcome,
        now: float,
        *,
        trial: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """How an attempt ended. Backends that have left the pool are of no interest."""
        member = self._members.get(backend)
        if member is None:
            return
        breaker = member.breaker
        if outcome is Outcome.OK and breaker.state is State.CLOSED:
            breaker.succeeded(now, trial=False)
            return
        is_trial = breaker.trial_out if trial is None else trial
        why = f"the trial ended: {outcome.value}" if is_trial else f"too many failures, the last one: {outcome.value}"
        if outcome is Outcome.OK:
            breaker.succeeded(now, trial=is_trial)
        elif outcome.is_failure:
            if breaker.failed(now, trial=is_trial) and self._can_spare_one():
                breaker.open(now)
        else:
            breaker.released(trial=is_trial)
            if outcome is Outcome.BUSY:
                member.busy_until = busy_until(now, retry_after_s, self._settings.busy_for_s)
        self._refresh(now, backend, why)

    # -- for the loops that keep the fleet true --------------------------------------------------------------------

    def set_members(self, backends: Sequence[Backend], now: float) -> None:
        """Who belongs to the pool: what is known of those that stay is kept, newcomers are NEW, leavers drain."""
        before = self._members
        self._members = {backend: before.get(backend) or _Member(self._settings, self._rng) for backend in backends}
        for backend in before:
            if backend not in self._members:
                backend.status = Status.DRAINING
        self._refresh(now)

    def configure(self, settings: HealthSettings, now: float) -> None:
        """New settings after a reload; counts and states stay."""
        self._settings = settings
        for member in self._members.values():
            member.breaker.configure(settings, now)
        self._refresh(now)

    def probed(self, backend: Backend, result: ProbeResult, now: float, reason: str = "") -> None:
        member = self._members.get(backend)
        if member is not None:
            member.probes.record(result, self._settings)
            self._refresh(now, backend, f"probe: {reason or result.value}")

    def hung(self, backend: Backend, is_hung: bool, now: float) -> None:
        """A member hangs (health by progress), or does not any more."""
        member = self._members.get(backend)
        if member is not None:
            member.hung = is_hung
            self._refresh(now, backend, "it computes nothing" if is_hung else "it computes again")

    def ease_in(self, backend: Backend, now: float) -> None:
        """A newcomer to a pool at work: its share grows with slow start, as one's does that has recovered."""
        member = self._members.get(backend)
        if member is not None:
            member.recovering = True
            self._refresh(now)

    def drain(self, backend: Backend, now: float) -> None:
        """No new work for a member, until `undrain`."""
        self._set_draining(backend, True, now)

    def undrain(self, backend: Backend, now: float) -> None:
        self._set_draining(backend, False, now)

    def status(self, backend: Backend, now: float) -> Status:
        """The label to show. A backend that has left is DRAINING."""
        if now >= self._due:
            self._refresh(now)
        return backend.status if backend in self._members else Status.DRAINING

    def breaker(self, backend: Backend, now: float) -> State:
        """The breaker's state, also where the status shows something weightier."""
        if now >= self._due:
            self._refresh(now)
        member = self._members.get(backend)
        return State.CLOSED if member is None else member.breaker.state

    # -- inside ----------------------------------------------------------------------------------------------------

    def _set_draining(self, backend: Backend, draining: bool, now: float) -> None:
        member = self._members.get(backend)
        if member is not None:
            member.draining = draining
            self._refresh(now, backend, "drained" if draining else "no longer drained")

    def _can_spare_one(self) -> bool:
        ejected = sum(member.breaker.state is not State.CLOSED for member in self._members.values())
        return may_eject(ejected, len(self._members), self._settings.max_ejected_percent)

    def _refresh(self, now: float, about: Backend | None = None, why: str = "") -> None:
        """Work everything out again: statuses, weights, candidates, and when to look again unasked. `why` is what has
        just happened to `about`; whatever else changes does so because time went by."""
        due = NEVER
        changes: list[tuple[Backend, Status, Status, str]] = []
        eligible: list[Backend] = []
        unhurried: list[Backend] = []
        for backend, member in self._members.items():
            member.breaker.tick(now)
            status = member.label
            backend.weight = backend.spec.weight * member.advance(status, now, self._settings.slow_start_s)
            if status is not backend.status:
                changes.append((backend, backend.status, status, why if backend is about else _TIME_OUT_OVER))
                backend.status = status
            if member.is_eligible(status):
                eligible.append(backend)
                if now >= member.busy_until:
                    unhurried.append(backend)
                else:
                    due = min(due, member.busy_until)
            due = min(due, member.breaker.due, member.slow_start.due)
        found = unhurried or eligible
        if not found:
            found = [b for b, member in self._members.items() if member.merely_seems_bad(b.status)]
        self._candidates = tuple(found)
        self._due = due
        if self.on_change is not None:
            for change in changes:
                self.on_change(*change)
