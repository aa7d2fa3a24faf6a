"""From what was decided to what the actuator is asked for. It is asked for numbers, so a call that failed is simply
made again; and what it accepted, and what did not come of it, is remembered here."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from llmproxy.control.actuators.base import ActuatorError, TiersFailed
from llmproxy.control.scaling.fleet import Replica, Stage
from llmproxy.control.scaling.moves import Bounds, Moves, Plan
from llmproxy.control.scaling.parts import Parts
from llmproxy.core.clock import Clock

CALL_TIMEOUT_S: Final = 60.0
MISSING_AFTER_S: Final = 90.0
"""An instance of a tier of capacity that was asked for so long ago and is not even listed is a start that failed."""
STOP_WITHIN_S: Final = 900.0
"""So long one that is stopping may take the place of one that was asked for."""
_ASK_AGAIN_S: Final = 5.0
"""A number that was accepted is said again so often, while it is not yet there."""

_log = logging.getLogger("llmproxy.control.scaling")


class Acting:
    """One pool's. `on_act(why, facts)` is told of what the actuator was made to do."""

    def __init__(self, parts: Parts, clock: Clock, on_act: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._parts = parts
        self._clock = clock
        self._on_act = on_act
        self._moves = Moves(parts.fleet, parts.lives, parts.backoff.wait_s, parts.sessions_at)
        self._asked: tuple[Mapping[str, int], float] | None = None
        """The last numbers the actuator took, and when."""
        self._missing_since: dict[str, float] = {}
        self._told_of: tuple[Mapping[str, int], tuple[str, ...]] | None = None
        self._trouble: dict[str, str] = {}
        """What was said last of each of its calls, while it fails."""

    def begin_anew(self, tiers: Collection[str] | None = None) -> None:
        """Whatever was asked for, what is there is where we begin. `tiers`: those that have changed; None: all."""
        self._asked = None
        for tier in list(self._missing_since) if tiers is None else tiers:
            self._missing_since.pop(tier, None)

    async def act(self, tiers: Mapping[str, int], over: list[Replica], token: int | None) -> bool:
        """Bring about so many of each tier. `over`: those that can be stopped. Whether anything was changed."""
        parts, now = self._parts, self._clock()
        bounds = self._bounds()
        wanted = self._moves.within(tiers, bounds)
        parts.lives.target = sum(wanted.values())
        # Nobody comes for the money of those that have not ended yet, and nobody goes for it.
        ending = parts.lives.cost_per_hour(Stage.STOPPING)
        plan = self._moves.plan(wanted, over, Bounds(bounds.most, bounds.most_per_hour - ending), now)
        if not plan.leaving and not plan.missing:
            self._asked = plan.tiers, now
            self._missing_since.clear()
            return False
        if not plan.leaving and self._asked is not None:
            asked, at = self._asked
            if asked == plan.tiers and now - at < _ASK_AGAIN_S:
                return False
        return await self._scale(plan, token)

    def _bounds(self) -> Bounds:
        """What there may be at all, for whatever it is: the warm pool too is paid for."""
        parts, latest = self._parts, self._parts.decisions.latest
        allowed = latest.decision.per_hour if latest is not None else None
        most_per_hour = min(parts.most_per_hour, math.inf if allowed is None else allowed)
        return Bounds(parts.most, most_per_hour)

    def look_for_missing(self) -> None:
        """Who was asked for and is not listed: an empty spot market accepts every wish."""
        parts, now = self._parts, self._clock()
        if self._asked is None or len(parts.fleet.tiers) < 2:
            return
        # An actuator may have no room for others beside those that are stopping, of whatever tier.
        leaving = sum(now - one.since < STOP_WITHIN_S for one in parts.fleet.at(Stage.STOPPING))
        for tier, count in self._asked[0].items():
            if parts.fleet.staying(tier) + leaving >= count:
                self._missing_since.pop(tier, None)
            elif now - self._missing_since.setdefault(tier, now) > MISSING_AFTER_S:
                self._missing_since[tier] = now
                _log.warning("pool %s: of tier %s, none comes", parts.pool.name, tier)
                parts.lives.not_started()
                parts.backoff.failed(now, tier, of_start=True)

    async def _scale(self, plan: Plan, token: int | None) -> bool:
        parts, leaving = self._parts, plan.leaving
        if token is None or not parts.leadership.is_held(token):
            return False
        parts.lives.hold(leaving)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                ids = [one.id for one in leaving]
                by_tier = None if parts.decider.tiers is None else plan.tiers
                await parts.actuator.scale(plan.count, leaving=ids, fence=token, tiers=by_tier)
        except TiersFailed as error:
            for tier in error.tiers:
                if tier in plan.tiers:
                    parts.lives.not_started()
                    parts.backoff.failed(self._clock(), tier, of_start=True)
            self.troubled(f"{', '.join(error.tiers)} cannot be had: {error}", "scale")
        except (ActuatorError, TimeoutError) as error:
            if plan.missing:
                parts.lives.not_started()
                parts.backoff.failed(self._clock())
            self.troubled(f"it cannot be brought to {plan.count} replicas: {error or 'no answer'}", "scale")
            parts.lives.begin_starts()
            return False
        else:
            self.answers("scale")
        self._asked = plan.tiers, self._clock()
        for replica in leaving:
            parts.lives.leave(replica)
        self._tell(plan, token)
        return True

    def _tell(self, plan: Plan, token: int) -> None:
        """Once: the same numbers are asked for again and again until they are there."""
        leaving = tuple(one.id for one in plan.leaving)
        if (plan.tiers, leaving) == self._told_of:
            return
        self._told_of = plan.tiers, leaving
        latest = self._parts.decisions.latest
        why = latest.decision.reason if latest is not None else ""
        facts: dict[str, Any] = {"pool": self._parts.pool.name, "replicas": plan.count}
        if self._parts.decider.tiers is not None:
            facts["tiers"] = dict(plan.tiers)
        self._on_act(why, {**facts, "leaving": leaving, "fence": token})

    # -- what is wrong ---------------------------------------------------------------------------------------------

    def troubled(self, what: str, call: str) -> None:
        """Say it once."""
        if what != self._trouble.get(call):
            self._trouble[call] = what
            _log.error("pool %s: %s; what runs goes on", self._parts.pool.name, what)

    def answers(self, call: str) -> None:
        """It does, to this one of its calls: who says who is there may be unable to start any."""
        if self._trouble.pop(call, ""):
            what = "says who is there" if call == "replicas" else "does as it is asked"
            _log.info("pool %s: the actuator %s again", self._parts.pool.name, what)
