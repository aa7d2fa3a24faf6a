"""The replicas of one pool and where in its life each of them is. No I/O: the loop acts on what this says."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from llmproxy.control.actuators.base import Instance
from llmproxy.core.backend import Backend


class Stage(Enum):
    """The value is what the admin API and the metrics call it."""

    STARTING = "starting"
    """Runs, and has not yet said a token. Gets no requests."""
    WARMING = "warming"
    """Works, and is given what it will be asked often."""
    SERVING = "serving"
    DRAINING = "draining"
    """No new work; what runs there finishes."""
    STANDBY = "standby"
    """Loaded, or asleep, and out of rotation."""
    STOPPING = "stopping"


COMING = frozenset({Stage.STARTING, Stage.WARMING})
GOING = frozenset({Stage.DRAINING, Stage.STOPPING})
"""Let go, and paid for until they are gone."""


@dataclass(slots=True, eq=False)
class Replica:
    """`asked_at`: when it was started; all times are monotonic seconds."""

    id: str
    url: str
    asked_at: float
    stage: Stage = Stage.STARTING
    since: float = 0.0
    """When it came to its stage."""
    backend: Backend | None = None
    """Its place in the pool, while it serves or drains."""
    recycle: str = ""
    """Why it must go whatever the number wanted; empty when it need not."""
    asleep: bool = False
    adopted: bool = False
    """It was there before us, and teaches nothing about starting."""
    roused: bool = False
    """It comes, or came, from the warm pool, which teaches nothing either."""
    given_up: bool = False
    """It took too long to come up, and that was counted."""
    bad_since: float | None = None
    tier: str = ""

    def move(self, stage: Stage, now: float) -> None:
        self.stage, self.since = stage, now


@dataclass(slots=True)
class Changes:
    """What the actuator's list brought."""

    new: list[Replica] = field(default_factory=list)
    died: list[Replica] = field(default_factory=list)
    """Gone without having been told to; their stage is the one they died in."""
    gone: list[Replica] = field(default_factory=list)
    """Gone as they should."""


class Fleet:
    """Replicas by id. `tiers`: the names of the tiers of capacity, one without a name where there are none; an instance
    of a tier nobody knows counts as one of the first."""

    def __init__(self, tiers: Sequence[str] = ("",)) -> None:
        self.tiers = tuple(tiers)
        self.replicas: dict[str, Replica] = {}

    def see(self, instances: Iterable[Instance], now: float) -> Changes:
        """Take over what the actuator lists."""
        changes = Changes()
        listed = {one.id: one for one in instances}
        for id, instance in listed.items():
            replica = self.replicas.get(id)
            if replica is None:
                tier = instance.tier if instance.tier in self.tiers else self.tiers[0]
                replica = Replica(id, instance.url, now - instance.age_s, since=now, tier=tier)
                self.replicas[id] = replica
                if instance.stopping:
                    replica.move(Stage.STOPPING, now)
                changes.new.append(replica)
            elif instance.url:
                replica.url = instance.url
            if instance.stopping and replica.stage is not Stage.STOPPING:
                replica.move(Stage.STOPPING, now)
        for id in self.replicas.keys() - listed.keys():
            replica = self.replicas.pop(id)
            (changes.gone if replica.stage is Stage.STOPPING else changes.died).append(replica)
        return changes

    def at(self, *stages: Stage, tier: str | None = None) -> list[Replica]:
        """Those in one of these stages (of `tier`; None: of any), the oldest first."""
        found = (one for one in self.replicas.values() if one.stage in stages and tier in (None, one.tier))
        return sorted(found, key=lambda one: one.asked_at)

    def count(self, *stages: Stage, tier: str | None = None) -> int:
        return sum(one.stage in stages and tier in (None, one.tier) for one in self.replicas.values())

    @property
    def present(self) -> int:
        """All that were not told to stop."""
        return sum(one.stage is not Stage.STOPPING for one in self.replicas.values())

    def staying(self, tier: str) -> int:
        """Those of one tier that were not told to stop."""
        return sum(one.stage is not Stage.STOPPING and one.tier == tier for one in self.replicas.values())


def victims(
    fleet: Fleet, count: int, lost: Callable[[Replica], tuple[bool, int, int]], tier: str | None = None
) -> Sequence[Replica]:
    """Which `count` replicas can best be spared: those that still start, the youngest first; then of those that serve
    the one with which least is `lost`: whether it is the last holder of a session or a LoRA adapter, how many
    sessions, and how many requests it is at."""
    coming = sorted(fleet.at(*COMING, tier=tier), key=lambda one: -one.asked_at)
    serving = sorted(fleet.at(Stage.SERVING, tier=tier), key=lambda one: (*lost(one), -one.asked_at))
    return [*coming, *serving][:count]
