"""What the loop of one pool is made of, and its pace."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.actuators.base import Actuator
from llmproxy.control.scaling.backoff import Backoff
from llmproxy.control.scaling.cold_starts import ColdStarts
from llmproxy.control.scaling.decisions import Decisions
from llmproxy.control.scaling.events import Events
from llmproxy.control.scaling.fleet import Fleet
from llmproxy.control.scaling.keeper import Keeper
from llmproxy.control.scaling.leader import Leadership
from llmproxy.control.scaling.lives import Lives
from llmproxy.control.scaling.meter import Meter
from llmproxy.control.scaling.queries import Queries
from llmproxy.control.scaling.shared import Shared
from llmproxy.control.scaling.start_times import StartTimes
from llmproxy.core.pool import Pool
from llmproxy.policy.scaling.decision import Decider

LOOK_EVERY_S: Final = 0.5


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
    own_sessions: Callable[[float], Mapping[str, int]] = lambda now: {}
    """How many sessions live at each backend (by id), as far as this proxy knows."""

    def sessions_at(self, now: float) -> Mapping[str, int]:
        """The same with what other proxies know."""
        found = dict(self.own_sessions(now))
        for id, count in self.meter.elsewhere.sessions.items():
            found[id] = found.get(id, 0) + count
        return found
