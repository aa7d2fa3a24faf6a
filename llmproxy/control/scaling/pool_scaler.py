"""The loop of one pool: look, decide, act. Everything that is decided is decided elsewhere; this brings it about.

It looks twice a second (drains, starts, who is there) and decides every `interval`, and at once when requests wait and
no replica is there or coming. What it asks of the actuator is a number, so a call that failed is simply made again.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.actuators.base import Actuator, ActuatorError
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.decisions import Decisions, Record
from llmproxy.control.scaling.events import Events
from llmproxy.control.scaling.fleet import COMING, Fleet, Replica, Stage, victims
from llmproxy.control.scaling.keeper import KEEP_EVERY_S, Keeper
from llmproxy.control.scaling.leader import Leadership
from llmproxy.control.scaling.lives import Lives
from llmproxy.control.scaling.meter import Meter, Replicas
from llmproxy.control.scaling.queries import Queries
from llmproxy.control.scaling.start_times import StartTimes
from llmproxy.control.tasks import end_tasks
from llmproxy.core.backend import Status
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool
from llmproxy.policy.scaling.decision import Decider

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
    dry: bool = False


class PoolScaler:
    """`paused` is asked each time."""

    def __init__(
        self,
        parts: Parts,
        pace: Pace,
        *,
        clock: Clock,
        wall: Callable[[], float],
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self.parts = parts
        self.pace = pace
        self.desired: int | None = None
        """What was decided last and is being brought about; None before that, and while nothing is."""
        self.token: int | None = None
        self._clock = clock
        self._wall = wall
        self._paused = paused
        self._task: asyncio.Task[None] | None = None
        self._asked: tuple[int, float] | None = None
        """The last number the actuator took, and when."""
        self._due = dict.fromkeys(("lease", "poll", "sample", "decide"), -math.inf)
        self._due["keep"] = clock() + KEEP_EVERY_S
        self._trouble = ""

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"scale {self.parts.pool.name}")

    async def stop(self) -> None:
        """No more changes. What runs goes on, unless the actuator ends it."""
        task, self._task = self._task, None
        await end_tasks(task)
        await self.parts.keeper.keep(self.parts.decider)
        await self.parts.lives.stop()
        await self.parts.queries.stop()
        await self.parts.actuator.stop()
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
        await parts.keeper.begin()
        if self._is_due("lease", LEASE_EVERY_S):
            before, self.token = self.token, await parts.leadership.acquire()
            if self.token != before:
                # Whatever an earlier leader asked for, what is there is where we begin.
                self._asked = None
        if self._is_due("sample", SAMPLE_EVERY_S):
            parts.meter.sample(self._clock())
        if self._is_due("poll", self.pace.poll_s) and not await self._poll():
            return
        over = parts.lives.tick(self._clock())
        if self._is_due("decide", self.pace.interval_s) or self._is_urgent():
            await self._prepare()
            self._decide()
        if self._acts:
            await self._act(over)
        if self._is_due("keep", KEEP_EVERY_S):
            await parts.keeper.keep(parts.decider)

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
        if self.parts.lives.see(instances):
            # What it had brought about is no more: the same number is news to it.
            self._asked = None
        return True

    @property
    def _acts(self) -> bool:
        return self.token is not None and not self._paused() and not self.parts.dry

    # -- deciding --------------------------------------------------------------------------------------------------

    def _is_urgent(self) -> bool:
        """Requests wait, and nobody comes."""
        return bool(self.parts.pool.queue.waiting) and not self.desired

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
        parts.decider.guardrails.paused = self._paused()
        decision = parts.decider.decide(signals, now)
        parts.decisions.add(Record(self._wall(), decision, self._acts))
        if self._acts:
            parts.decider.done(decision.change, now)
            self.desired = decision.replicas
        else:
            # Where nothing is brought about, what is there is where the next decision begins.
            self.desired = None

    # -- acting ----------------------------------------------------------------------------------------------------

    async def _act(self, over: list[Replica]) -> None:
        parts = self.parts
        if self.desired is None:
            return
        desired = min(self.desired, parts.most)
        parts.lives.target = desired
        self._up(desired)
        leaving = self._down(desired, over)
        missing = self._missing(desired, leaving)
        count = parts.fleet.present - len(leaving) + missing
        if not leaving and not missing:
            self._asked = count, self._clock()
            return
        if not leaving and self._asked is not None:
            asked, at = self._asked
            if asked == count and self._clock() - at < _ASK_AGAIN_S:
                return
        await self._scale(count, leaving)

    def _up(self, desired: int) -> None:
        """First those that are here already: on their way out, or resting."""
        fleet, lives = self.parts.fleet, self.parts.lives
        need = desired - fleet.count(Stage.SERVING) - fleet.count(*COMING)
        draining = [one for one in reversed(fleet.at(Stage.DRAINING)) if not one.recycle]
        for replica in draining[: max(need, 0)]:
            lives.undrain(replica)
            need -= 1
        for replica in fleet.at(Stage.STANDBY)[: max(need, 0)]:
            lives.rouse(replica)
            need -= 1
        surplus = fleet.count(Stage.SERVING) + fleet.count(*COMING) - desired
        spared = [one for one in self._victims(max(surplus, 0)) if one.stage is Stage.SERVING]
        for replica in spared:
            lives.drain(replica)

    def _down(self, desired: int, over: list[Replica]) -> list[Replica]:
        """Who leaves now: drained ones that the warm pool has no room for, and starts that nobody needs any more."""
        fleet, lives = self.parts.fleet, self.parts.lives
        leaving = []
        room = lives.terms.warm_size - fleet.count(Stage.STANDBY)
        for replica in over:
            if replica.stage is Stage.DRAINING and not replica.recycle and room > 0:
                lives.rest(replica)
                room -= 1
            elif replica.stage in (Stage.DRAINING, *COMING):
                leaving.append(replica)
        coming = [one for one in reversed(fleet.at(*COMING)) if one not in leaving]
        surplus = fleet.count(Stage.SERVING) + len(coming) - desired - max(room, 0)
        leaving += coming[: max(surplus, 0)]
        resting = fleet.at(Stage.STANDBY)
        leaving += resting[: max(len(resting) - lives.terms.warm_size, 0)]
        return leaving

    def _missing(self, desired: int, leaving: list[Replica]) -> int:
        """How many to start: for the work, and for the warm pool; never beyond the bound, nor against the backoff."""
        fleet, lives = self.parts.fleet, self.parts.lives
        staying = [one for one in fleet.at(*COMING, Stage.SERVING, Stage.STANDBY) if one not in leaving]
        room = self.parts.most - (fleet.present - len(leaving))
        missing = min(desired + lives.terms.warm_size - len(staying), room)
        return max(missing, 0) if not self.parts.backoff.wait_s(self._clock()) else 0

    def _victims(self, count: int) -> list[Replica]:
        def in_flight(replica: Replica) -> int:
            return replica.backend.load.in_flight if replica.backend is not None else 0

        serving = self.parts.fleet.at(Stage.SERVING)
        return list(victims(self.parts.fleet, count, in_flight, last_holders(serving, self._clock())))

    async def _scale(self, count: int, leaving: list[Replica]) -> None:
        parts, token = self.parts, self.token
        if token is None or not parts.leadership.is_held(token):
            return
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await parts.actuator.scale(count, leaving=[one.id for one in leaving], fence=token)
        except (ActuatorError, TimeoutError) as error:
            parts.backoff.failed(self._clock())
            self._troubled(f"it cannot be brought to {count} replicas: {error or 'no answer'}")
            return
        self._asked = count, self._clock()
        self._due["poll"] = -math.inf
        for replica in leaving:
            parts.lives.leave(replica)

    def _troubled(self, what: str) -> None:
        """Say it once."""
        if what != self._trouble:
            self._trouble = what
            _log.error("pool %s: %s; what runs goes on", self.parts.pool.name, what)


def last_holders(serving: list[Replica], now: float) -> list[Replica]:
    """Those that alone have some LoRA adapter at work."""
    holders: dict[str, list[Replica]] = {}
    for replica in serving:
        gauges = replica.backend.known(now) if replica.backend is not None else None
        for adapter in (gauges.loras or ()) if gauges is not None else ():
            holders.setdefault(adapter, []).append(replica)
    return [found[0] for found in holders.values() if len(found) == 1]
