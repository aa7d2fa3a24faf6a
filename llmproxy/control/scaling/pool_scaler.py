"""The loop of one pool: look, decide, act. Everything that is decided is decided elsewhere; this brings it about.

It looks twice a second (drains, starts, who is there) and decides every `interval`, and at once when requests wait and
no replica is there or coming. What it asks of the actuator is a number, so a call that failed is simply made again.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from llmproxy.control.actuators.base import ActuatorError
from llmproxy.control.scaling.acting import CALL_TIMEOUT_S, Acting
from llmproxy.control.scaling.decisions import Record
from llmproxy.control.scaling.fleet import COMING, GOING, Stage
from llmproxy.control.scaling.keeper import KEEP_EVERY_S
from llmproxy.control.scaling.meter import Replicas
from llmproxy.control.scaling.parts import Pace, Parts
from llmproxy.control.tasks import end_tasks
from llmproxy.core.backend import Status
from llmproxy.core.clock import Clock
from llmproxy.policy.scaling.base import TierState
from llmproxy.policy.scaling.stabiliser import Stabiliser
from llmproxy.policy.scaling.tiers import with_tiers

SAMPLE_EVERY_S: Final = 1.0
LEASE_EVERY_S: Final = 3.0

_log = logging.getLogger("llmproxy.control.scaling")


class PoolScaler:
    """`paused` is asked each time. `on_act(why, facts)` is told of what the actuator was made to do."""

    def __init__(
        self,
        parts: Parts,
        pace: Pace,
        *,
        clock: Clock,
        wall: Callable[[], float],
        paused: Callable[[], bool] = lambda: False,
        on_act: Callable[[str, Mapping[str, Any]], None] = lambda why, facts: None,
    ) -> None:
        self.parts = parts
        self.pace = pace
        self.desired: int | None = None
        """What was decided last and is being brought about; None before that, and while nothing is."""
        self.tiers: dict[str, int] = {}
        """The same by tier of capacity; one without a name where there are none."""
        self.token: int | None = None
        self._clock = clock
        self._wall = wall
        self._paused = paused
        self._acting = Acting(parts, clock, on_act)
        self._begun_with: Stabiliser | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_halted = False
        self._due = dict.fromkeys(("begin", "lease", "poll", "sample", "decide"), -math.inf)
        self._due["keep"] = clock() + KEEP_EVERY_S

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Also once more, after `halt`."""
        self._due |= dict.fromkeys(("lease", "poll"), -math.inf)
        self._is_halted = False
        self._task = asyncio.create_task(self._run(), name=f"scale {self.parts.pool.name}")

    async def halt(self) -> None:
        """No more changes, nobody who comes begins to serve any more, and another proxy may lead. What is known is
        kept, once: who scales this pool next goes on from there."""
        task, self._task = self._task, None
        await end_tasks(task)
        if self._is_halted:
            return
        self._is_halted = True
        await self.parts.lives.stop()
        await self.parts.queries.stop()
        if self._keeps:
            await self.parts.keeper.keep(self.parts.decider, self.parts.meter.capacity.learned)
        self.token = None
        await self.parts.leadership.release()

    async def stop(self) -> None:
        """The end. What runs goes on, unless the actuator ends it."""
        await self.halt()
        self.parts.keeper.close()
        await self.parts.actuator.stop()
        await self.parts.shared.leave()

    def hurry(self) -> None:
        """Decide at the next look."""
        self._due["decide"] = -math.inf

    async def _run(self) -> None:
        self.parts.queries.start()
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("scaling pool %s failed; trying again", self.parts.pool.name)
            await asyncio.sleep(self.pace.look_s)

    # -- a round ---------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """One round."""
        parts = self.parts
        if not parts.keeper.has_begun and self._is_due("begin", LEASE_EVERY_S):
            await parts.keeper.begin()
            parts.meter.capacity.resume(parts.keeper.learned)
        if self._is_due("lease", LEASE_EVERY_S):
            before, self.token = self.token, await parts.leadership.acquire()
            if self.token != before:
                self._acting.begin_anew()
        await self._share()
        if self._is_due("sample", SAMPLE_EVERY_S):
            self._sample()
        if self._is_due("poll", self.pace.poll_s) and not await self._poll():
            return
        over = parts.lives.tick(self._clock(), paused=self._paused())
        fleet = parts.fleet
        parts.cold_starts.saw(
            fleet.count(Stage.SERVING), len(fleet.replicas) - fleet.count(Stage.STANDBY), self._clock()
        )
        if parts.keeper.has_begun and (self._is_due("decide", self.pace.interval_s) or self._is_urgent()):
            await self._prepare()
            self._decide()
        if self._acts and self.desired is not None:
            if await self._acting.act(self.tiers, over, self.token):
                self._due["poll"] = -math.inf
            self._acting.look_for_missing()
        if self._is_due("keep", KEEP_EVERY_S) and self._keeps:
            await parts.keeper.keep(parts.decider, parts.meter.capacity.learned)

    def _sample(self) -> None:
        parts = self.parts
        parts.meter.sample(self._clock())
        is_cold = parts.fleet.count(*COMING) > 0 or (self.desired or 0) > parts.fleet.count(Stage.SERVING)
        parts.cold_starts.counted(*parts.meter.waited_and_failed(), is_cold=is_cold)

    async def _share(self) -> None:
        """Say and hear what proxies over the same fleet have to know of each other."""
        parts, now = self.parts, self._clock()
        if parts.shared.orders is None:
            return
        lives = parts.lives
        at = {
            one.id: (one.stage.value, one.backend.load.in_flight if one.backend is not None else 0)
            for one in parts.fleet.replicas.values()
        }
        # What a leader says before it has seen who is there would be that there is nobody.
        token = self.token if lives.has_seen else None
        await parts.shared.sync(token, parts.fleet, parts.meter.report(now, at, parts.own_sessions(now)), now)
        parts.meter.elsewhere.take(parts.shared.others(now))
        if self.token is None:
            lives.follow(parts.shared.in_force)
        else:
            lives.orders = None

    def _is_due(self, what: str, every_s: float) -> bool:
        now = self._clock()
        if now < self._due[what]:
            return False
        self._due[what] = now + every_s
        return True

    async def _poll(self) -> bool:
        """Ask who is there. False when that is not known."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                instances = await self.parts.actuator.replicas()
        except (ActuatorError, TimeoutError) as error:
            self._acting.troubled(f"who is there cannot be asked: {error or 'no answer'}", "replicas")
            return False
        self._acting.answers("replicas")
        missed = self.parts.lives.see(instances, self.parts.shared.in_force)
        if missed:
            # What it had brought about is no more: the same number is news to it.
            self._acting.begin_anew(missed)
        return True

    @property
    def _acts(self) -> bool:
        parts = self.parts
        knows = parts.shared.known and parts.keeper.has_begun
        return self.token is not None and knows and not self._paused() and not parts.dry

    @property
    def _keeps(self) -> bool:
        """Of those that share a history, one writes it."""
        keeper = self.parts.keeper
        return keeper.has_begun and (self.token is not None or not keeper.is_shared)

    # -- deciding --------------------------------------------------------------------------------------------------

    def _is_urgent(self) -> bool:
        """Requests wait, and nobody comes."""
        waiting = self.parts.pool.queue.waiting + self.parts.meter.elsewhere.waiting
        return bool(waiting) and not self.desired

    def counts(self) -> Replicas:
        """How many there are. What was decided and is not there is on its way: it is asked for until it comes."""
        fleet = self.parts.fleet
        if self.parts.dry:
            return Replicas(ready=sum(one.status is Status.HEALTHY for one in self.parts.pool.backends))
        serving, coming = fleet.count(Stage.SERVING), fleet.count(*COMING)
        if self._acts and self.desired is not None:
            # Of those that come, what is beyond the decision is for the warm pool.
            coming = max(self.desired - serving, 0)
        return Replicas(serving, coming, fleet.count(*GOING), fleet.count(Stage.STANDBY))

    def _tier_states(self) -> tuple[TierState, ...]:
        """The same by tier of capacity, where there are tiers."""
        parts = self.parts
        states = []
        for number, tier in enumerate(parts.fleet.tiers):
            if parts.dry:
                states.append(parts.meter.tier(tier, 0 if number else self.counts().ready, 0))
                continue
            serving, coming = parts.fleet.count(Stage.SERVING, tier=tier), parts.fleet.count(*COMING, tier=tier)
            state = parts.meter.tier(tier, serving, coming)
            if self._acts and self.desired is not None:
                decided, avoided = self.tiers.get(tier, 0), parts.backoff.is_avoided(tier, self._clock())
                beyond = max(serving - decided, 0)
                # What was asked for in vain is not on its way.
                starting = min(max(decided - serving, 0), coming if avoided else decided)
                state = replace(state, ready=serving - beyond, starting=starting, leaving=beyond, avoided=avoided)
            states.append(state)
        return tuple(states)

    async def _prepare(self) -> None:
        parts = self.parts
        # Until it is so: a reload may bring another decider while this one learns.
        while not parts.keeper.is_prepared(parts.decider, parts.times.expected_s):
            await parts.keeper.prepare(parts.decider, parts.times.expected_s)

    def _decide(self) -> None:
        parts, now = self.parts, self._clock()
        signals = parts.meter.signals(
            now, self._wall(), self.counts(), cold_start_s=parts.times.expected_s, queries=parts.queries.answers(now)
        )
        if parts.decider.tiers is not None:
            leaving = parts.lives.cost_per_hour(*GOING)
            signals = with_tiers(signals, parts.decider.tiers.tiers, self._tier_states(), leaving)
        if not parts.dry and parts.decider.guardrails.budget is not None:
            # Who was asked for costs nothing before it is there, and who ends does until it is gone.
            signals = replace(signals, cost_per_hour=parts.lives.cost_per_hour(*Stage))
        parts.decider.guardrails.paused = self._paused()
        if parts.decider.stabiliser is not self._begun_with:
            # A proxy that takes engines over, or other settings: nothing was wanted yet that could be looked back on.
            self._begun_with = parts.decider.stabiliser
            parts.decider.found(signals, now)
        decision = parts.decider.decide(signals, now)
        parts.decisions.add(Record(self._wall(), decision, self._acts))
        if self._acts:
            tiers = dict(decision.tiers) or {"": decision.replicas}
            # What is asked for once more, because it has not come, is no further change.
            is_new = self.desired is None or tiers != self.tiers
            parts.decider.done(decision.change if is_new else 0, now)
            parts.cold_starts.decided(signals.actual, decision.replicas, now)
            self.desired, self.tiers = decision.replicas, tiers
        else:
            # Where nothing is brought about, what is there is where the next decision begins.
            self.desired = None
