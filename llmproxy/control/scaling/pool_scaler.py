"""The loop of one pool: look, decide, act. Everything that is decided is decided elsewhere; this brings it about.

It looks twice a second (drains, starts, who is there) and decides every `interval`, and at once when requests wait and
no replica is there or coming. What it asks of the actuator is a number, so a call that failed is simply made again.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.actuators.base import Actuator, ActuatorError
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.cold_starts import ColdStarts
from llmproxy.control.scaling.decisions import Decisions, Record
from llmproxy.control.scaling.events import Events
from llmproxy.control.scaling.fleet import COMING, Fleet, Replica, Stage
from llmproxy.control.scaling.keeper import KEEP_EVERY_S, Keeper
from llmproxy.control.scaling.leader import Leadership
from llmproxy.control.scaling.lives import Lives
from llmproxy.control.scaling.meter import Meter, Replicas
from llmproxy.control.scaling.moves import Bounds, Moves, Plan
from llmproxy.control.scaling.queries import Queries
from llmproxy.control.scaling.shared import Shared
from llmproxy.control.scaling.start_times import StartTimes
from llmproxy.control.tasks import end_tasks
from llmproxy.core.backend import Status
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool
from llmproxy.policy.scaling.base import TierState
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.tiers import with_tiers

LOOK_EVERY_S: Final = 0.5
SAMPLE_EVERY_S: Final = 1.0
LEASE_EVERY_S: Final = 3.0
CALL_TIMEOUT_S: Final = 60.0
_ASK_AGAIN_S: Final = 5.0
"""A number that was accepted is said again so often, while it is not yet there."""

_log = logging.getLogger("llmproxy.control.scaling")


@dataclass(frozen=True, slots=True)
class Pace:
    """`poll_s`: how often the actuator is asked who is there."""

    interval_s: float = 5.0
    poll_s: float = 0.5
    look_s: float = LOOK_EVERY_S


@dataclass(slots=True)
class Parts:
    """What a pool's loop is made of."""

    pool: Pool[PoolConfig]
    decider: Decider
    actuator: Actuator
    meter: Meter
    fleet: Fleet
    lives: Lives
    times: StartTimes
    backoff: Backoff
    leadership: Leadership
    events: Events
    queries: Queries
    decisions: Decisions
    keeper: Keeper
    most: int
    """No decision and no warm pool makes more instances than this."""
    most_per_hour: float = math.inf
    """Nor ones that cost more than this in all."""
    dry: bool = False
    cold_starts: ColdStarts = field(default_factory=ColdStarts)
    shared: Shared = field(default_factory=Shared)


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
        self._on_act = on_act
        self._moves = Moves(parts.fleet, parts.lives, parts.backoff.wait_s)
        self._told_of: tuple[Mapping[str, int], tuple[str, ...]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked: tuple[Mapping[str, int], float] | None = None
        """The last numbers the actuator took, and when."""
        self._due = dict.fromkeys(("begin", "lease", "poll", "sample", "decide"), -math.inf)
        self._due["keep"] = clock() + KEEP_EVERY_S
        self._trouble = ""

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"scale {self.parts.pool.name}")

    async def stop(self) -> None:
        """No more changes. What runs goes on, unless the actuator ends it."""
        task, self._task = self._task, None
        await end_tasks(task)
        if self._keeps:
            await self.parts.keeper.keep(self.parts.decider)
        self.parts.keeper.close()
        await self.parts.lives.stop()
        await self.parts.queries.stop()
        await self.parts.actuator.stop()
        await self.parts.shared.leave()
        await self.parts.leadership.release()

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
        if self._is_due("lease", LEASE_EVERY_S):
            before, self.token = self.token, await parts.leadership.acquire()
            if self.token != before:
                # Whatever an earlier leader asked for, what is there is where we begin.
                self._asked = None
        await self._share()
        if self._is_due("sample", SAMPLE_EVERY_S):
            self._sample()
        if self._is_due("poll", self.pace.poll_s) and not await self._poll():
            return
        over = parts.lives.tick(self._clock())
        fleet = parts.fleet
        parts.cold_starts.saw(
            fleet.count(Stage.SERVING), len(fleet.replicas) - fleet.count(Stage.STANDBY), self._clock()
        )
        if parts.keeper.has_begun and (self._is_due("decide", self.pace.interval_s) or self._is_urgent()):
            await self._prepare()
            self._decide()
        if self._acts:
            await self._act(over)
        if self._is_due("keep", KEEP_EVERY_S) and self._keeps:
            await parts.keeper.keep(parts.decider)

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
        await parts.shared.sync(token, parts.fleet, parts.meter.report(now, at), now)
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
            self._troubled(f"who is there cannot be asked: {error or 'no answer'}")
            return False
        if self._trouble:
            _log.info("pool %s: the actuator answers again", self.parts.pool.name)
            self._trouble = ""
        if self.parts.lives.see(instances, self.parts.shared.in_force):
            # What it had brought about is no more: the same number is news to it.
            self._asked = None
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
        return Replicas(serving, coming, fleet.count(Stage.DRAINING), fleet.count(Stage.STANDBY))

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
                decided = self.tiers.get(tier, 0)
                beyond = max(serving - decided, 0)
                state = replace(state, ready=serving - beyond, starting=max(decided - serving, 0), leaving=beyond)
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
            resting = parts.lives.cost_per_hour(Stage.DRAINING, Stage.STANDBY)
            signals = with_tiers(signals, parts.decider.tiers.tiers, self._tier_states(), resting)
        parts.decider.guardrails.paused = self._paused()
        decision = parts.decider.decide(signals, now)
        parts.decisions.add(Record(self._wall(), decision, self._acts))
        if self._acts:
            parts.decider.done(decision.change, now)
            parts.cold_starts.decided(signals.actual, decision.replicas, now)
            self.desired = decision.replicas
            self.tiers = dict(decision.tiers) or {"": decision.replicas}
        else:
            # Where nothing is brought about, what is there is where the next decision begins.
            self.desired = None

    # -- acting ----------------------------------------------------------------------------------------------------

    async def _act(self, over: list[Replica]) -> None:
        parts = self.parts
        if self.desired is None:
            return
        bounds = Bounds(parts.most, parts.most_per_hour)
        tiers = self._moves.within(self.tiers, bounds)
        parts.lives.target = sum(tiers.values())
        plan = self._moves.plan(tiers, over, bounds, self._clock())
        if not plan.leaving and not plan.missing:
            self._asked = plan.tiers, self._clock()
            return
        if not plan.leaving and self._asked is not None:
            asked, at = self._asked
            if asked == plan.tiers and self._clock() - at < _ASK_AGAIN_S:
                return
        await self._scale(plan)

    async def _scale(self, plan: Plan) -> None:
        parts, token, count, leaving = self.parts, self.token, plan.count, plan.leaving
        if token is None or not parts.leadership.is_held(token):
            return
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                ids = [one.id for one in leaving]
                by_tier = None if parts.decider.tiers is None else plan.tiers
                await parts.actuator.scale(count, leaving=ids, fence=token, tiers=by_tier)
        except (ActuatorError, TimeoutError) as error:
            parts.backoff.failed(self._clock())
            self._troubled(f"it cannot be brought to {count} replicas: {error or 'no answer'}")
            return
        self._asked = plan.tiers, self._clock()
        self._due["poll"] = -math.inf
        for replica in leaving:
            parts.lives.leave(replica)
        self._tell(plan, token)

    def _tell(self, plan: Plan, token: int) -> None:
        """Once: the same numbers are asked for again and again until they are there."""
        leaving = tuple(one.id for one in plan.leaving)
        if (plan.tiers, leaving) == self._told_of:
            return
        self._told_of = plan.tiers, leaving
        latest = self.parts.decisions.latest
        why = latest.decision.reason if latest is not None else ""
        facts: dict[str, Any] = {"pool": self.parts.pool.name, "replicas": plan.count}
        if self.parts.decider.tiers is not None:
            facts["tiers"] = dict(plan.tiers)
        self._on_act(why, {**facts, "leaving": leaving, "fence": token})

    def _troubled(self, what: str) -> None:
        """Say it once."""
        if what != self._trouble:
            self._trouble = what
            _log.error("pool %s: %s; what runs goes on", self.parts.pool.name, what)
