"""The daily case: 500 requests a minute from 7 to 9, 50 otherwise; `schedule` and `demand` beside fixed servers."""

from dataclasses import dataclass
from random import Random
from typing import Final

from llmproxy.policy.scaling.guardrails import Limits
from llmproxy.sim.scaling.fleet import Fleet, Model
from llmproxy.sim.scaling.ours import Ours
from llmproxy.sim.scaling.race import replay
from llmproxy.sim.scaling.traffic import Rates, Window, arrivals

FIXED: Final = 4
_HOUR_S: Final = 3600
_QUIET, _BUSY = 50 / 60, 500 / 60
POLICIES: Final = (
    ("demand", {}),
    ("schedule", [{"cron": "45 6 * * *", "min": 4, "max": 8}, {"cron": "0 9 * * *", "min": 1, "max": 8}]),
)


@dataclass(frozen=True, slots=True)
class Day:
    """`late`: requests of the morning spike that waited longer than the objective allows."""

    replica_hours: float
    in_slo: float
    late: float
    scale_events: int

    @property
    def saved(self) -> float:
        """Share of the replica-hours of the fixed servers."""
        return 1 - self.replica_hours / (FIXED * 24)


def day(seed: int = 0, model: Model | None = None) -> Day:
    """Midnight to midnight (UTC)."""
    model = model or Model()
    windows = (Window(0, _QUIET, 1.0), Window(7 * _HOUR_S, _BUSY, 1.0), Window(9 * _HOUR_S, _QUIET, 1.0))
    rates = Rates("day", windows, 24 * _HOUR_S)
    traffic = arrivals(rates, rates.mean, Random(seed))
    fleet, ours = Fleet(model, 1), Ours(model, POLICIES, limits=Limits(1, 8))
    replay(fleet, ours, traffic[: 7 * _HOUR_S])
    judged, in_time = fleet.judged, fleet.in_time
    replay(fleet, ours, traffic[7 * _HOUR_S : 9 * _HOUR_S])
    late = (fleet.judged - judged) - (fleet.in_time - in_time)
    replay(fleet, ours, traffic[9 * _HOUR_S :])
    fleet.finish()
    return Day(fleet.replica_hours, fleet.attained, late, fleet.events)
