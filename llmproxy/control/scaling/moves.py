"""From the number that was decided to who is taken back, drained, stopped and started. No I/O; tier by tier where there
are tiers of capacity, and as one tier without a name where there are none."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from llmproxy.control.scaling.fleet import COMING, Fleet, Replica, Stage, victims
from llmproxy.control.scaling.lives import Lives

_SLIVER: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Plan:
    """`tiers`: how many instances of each there shall be, those in `leaving` not among them; `missing` of all these
    are to be started."""

    tiers: Mapping[str, int]
    leaving: list[Replica]
    missing: int

    @property
    def count(self) -> int:
        return sum(self.tiers.values())


@dataclass(slots=True)
class Bounds:
    """No more instances than `most`, nor such as cost more than `most_per_hour` in all, whatever they are for."""

    most: int
    most_per_hour: float = math.inf


class Moves:
    """`wait_s(now, tier)`: how long no replica of a tier may be started. `sessions_at(now)`: how many sessions live at
    each backend, by its id. The warm pool is of the first tier."""

    def __init__(
        self,
        fleet: Fleet,
        lives: Lives,
        wait_s: Callable[[float, str], float],
        sessions_at: Callable[[float], Mapping[str, int]] = lambda now: {},
    ) -> None:
        self._fleet = fleet
        self._lives = lives
        self._wait_s = wait_s
        self._sessions_at = sessions_at

    def within(self, tiers: Mapping[str, int], bounds: Bounds) -> dict[str, int]:
        """`tiers` cut to what may be at all, the last first: a reload may have lowered the bounds since they were
        decided."""
        found = {tier: tiers.get(tier, 0) for tier in self._fleet.tiers}
        for tier in reversed(self._fleet.tiers):
            price = self._price(tier)
            while found[tier] and (
                sum(found.values()) > bounds.most or (price and self._cost_of(found) > bounds.most_per_hour + _SLIVER)
            ):
                found[tier] -= 1
        return found

    def plan(self, tiers: Mapping[str, int], over: list[Replica], bounds: Bounds, now: float) -> Plan:
        """Take back and drain who is to be; who leaves and how many come is for the actuator. `over`: drained, or
        given up."""
        for tier, desired in tiers.items():
            self._take_back(tier, desired)
        self._drain(tiers, bounds, now)
        warm_size = self._room(self._fleet.tiers[0], self._lives.warm_size, tiers, bounds)
        leaving = self._leaving(tiers, over, warm_size)
        staying = {tier: self._fleet.staying(tier) - sum(one.tier == tier for one in leaving) for tier in tiers}
        counts = dict(staying)
        for tier in tiers:
            if not self._wait_s(now, tier):
                counts[tier] += self._room(tier, self._missing(tier, tiers[tier], leaving, warm_size), counts, bounds)
        return Plan(counts, leaving, sum(counts.values()) - sum(staying.values()))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _take_back(self, tier: str, desired: int) -> None:
        """First those that are here already: on their way out, or resting."""
        fleet, lives = self._fleet, self._lives
        need = desired - fleet.count(Stage.SERVING, *COMING, tier=tier)
        draining = [one for one in reversed(fleet.at(Stage.DRAINING, tier=tier)) if not one.recycle]
        for replica in draining[: max(need, 0)]:
            lives.undrain(replica)
            need -= 1
        for replica in fleet.at(Stage.STANDBY, tier=tier)[: max(need, 0)]:
            lives.rouse(replica)
            need -= 1

    def _drain(self, tiers: Mapping[str, int], bounds: Bounds, now: float) -> None:
        """Those that are too many. One that serves does not go for one of another tier before that one serves, unless
        there is no room for both."""
        fleet = self._fleet
        there = {tier: fleet.count(Stage.SERVING, *COMING, tier=tier) for tier in tiers}
        missing = {tier: max(desired - there[tier], 0) for tier, desired in tiers.items()}
        wanting = {tier: there[tier] + missing[tier] for tier in tiers}
        crowded = sum(wanting.values()) - bounds.most
        if any(missing.values()) and self._cost_of(wanting) > bounds.most_per_hour + _SLIVER:
            crowded = max(crowded, 1)
        spare = max(fleet.count(Stage.SERVING) - sum(tiers.values()), crowded if any(missing.values()) else 0)
        for tier, desired in tiers.items():
            surplus = max(there[tier] - desired, 0)
            chosen = [one for one in self._victims(surplus, tier, now) if one.stage is Stage.SERVING]
            for replica in chosen[: max(spare, 0)]:
                self._lives.drain(replica)
                spare -= 1

    def _leaving(self, tiers: Mapping[str, int], over: list[Replica], warm_size: int) -> list[Replica]:
        """Who leaves now: drained ones that the warm pool has no room for, and starts that nobody needs any more."""
        fleet, lives = self._fleet, self._lives
        leaving = []
        first = fleet.tiers[0]
        room = warm_size - fleet.count(Stage.STANDBY)
        for replica in over:
            is_drained = replica.stage is Stage.DRAINING
            if is_drained and not replica.recycle and room > 0 and replica.tier == first:
                lives.rest(replica)
                room -= 1
            elif is_drained or replica.stage in COMING:
                leaving.append(replica)
        for tier, desired in tiers.items():
            coming = [one for one in reversed(fleet.at(*COMING, tier=tier)) if one not in leaving]
            surplus = fleet.count(Stage.SERVING, tier=tier) + len(coming) - desired
            leaving += coming[: max(surplus - (max(room, 0) if tier == first else 0), 0)]
        resting = fleet.at(Stage.STANDBY)
        leaving += resting[: max(len(resting) - warm_size, 0)]
        return leaving

    def _missing(self, tier: str, desired: int, leaving: list[Replica], warm_size: int) -> int:
        """How many there should be beyond those that stay: for the work, and for the warm pool."""
        there = self._fleet.at(*COMING, Stage.SERVING, Stage.STANDBY, tier=tier)
        rest = warm_size if tier == self._fleet.tiers[0] else 0
        return desired + rest - sum(one not in leaving for one in there)

    def _room(self, tier: str, wanted: int, counts: Mapping[str, int], bounds: Bounds) -> int:
        room = bounds.most - sum(counts.values())
        price, left = self._price(tier), bounds.most_per_hour - self._cost_of(counts)
        if price and left < math.inf:
            room = min(room, math.floor(left / price + _SLIVER))
        return max(min(wanted, room), 0)

    def _victims(self, count: int, tier: str, now: float) -> list[Replica]:
        if not count:
            return []
        sessions_at, holders = self._sessions_at(now), set(last_holders(self._fleet.at(Stage.SERVING), now))

        def lost(replica: Replica) -> tuple[bool, int, int]:
            sessions = sessions_at.get(replica.id, 0)
            in_flight = replica.backend.load.in_flight if replica.backend is not None else 0
            return replica in holders, sessions, in_flight

        return list(victims(self._fleet, count, lost, tier))

    def _price(self, tier: str) -> float:
        return self._lives.terms.of(tier).price_per_hour

    def _cost_of(self, counts: Mapping[str, int]) -> float:
        return sum(self._price(tier) * count for tier, count in counts.items())


def last_holders(serving: list[Replica], now: float) -> list[Replica]:
    """Those that alone have some LoRA adapter at work."""
    holders: dict[str, list[Replica]] = {}
    for replica in serving:
        gauges = replica.backend.known(now) if replica.backend is not None else None
        for adapter in (gauges.loras or ()) if gauges is not None else ():
            holders.setdefault(adapter, []).append(replica)
    return [found[0] for found in holders.values() if len(found) == 1]
