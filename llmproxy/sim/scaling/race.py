"""Every controller at the same traffic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Final

from llmproxy.sim.scaling.clairvoyant import Clairvoyant
from llmproxy.sim.scaling.controller import Controller, Maker
from llmproxy.sim.scaling.fleet import Fleet, Model
from llmproxy.sim.scaling.ours import Ours
from llmproxy.sim.scaling.rivals.hpa import Hpa
from llmproxy.sim.scaling.rivals.keda import Keda
from llmproxy.sim.scaling.rivals.kpa import Kpa

MEAN_REPLICAS: Final = 10.0
"""How many replicas' worth mean demand is scaled to."""
CLAIRVOYANT: Final = "clairvoyant"

CONTROLLERS: Final[Mapping[str, Maker]] = MappingProxyType(
    {
        "demand": lambda model, traffic: Ours(model),
        "hpa": Hpa,
        "kpa": Kpa,
        "keda": Keda,
        CLAIRVOYANT: Clairvoyant,
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """`scale_events`: times the number of replicas was changed."""

    controller: str
    slo_attained: float
    replica_hours: float
    scale_events: int


def run(name: str, controller: Controller, model: Model, traffic: Sequence[int]) -> Result:
    """The whole traffic. It begins with what its first minute needs at 70 %."""
    first = sum(traffic[:60]) / max(min(len(traffic), 60), 1)
    start = ceil(first / (0.7 * model.begins_per_s))
    fleet = Fleet(model, min(max(start, model.replicas_min), model.replicas_max))
    replay(fleet, controller, traffic)
    fleet.finish()
    return Result(name, fleet.attained, fleet.replica_hours, fleet.events)


def replay(fleet: Fleet, controller: Controller, traffic: Sequence[int]) -> None:
    """Go on with so much traffic."""
    period, tick, second = controller.period_s, fleet.tick, controller.second
    for count in traffic:
        tick(count)
        second(count, fleet)
        if fleet.now % period == 0:
            wanted = controller.wanted(fleet)
            if wanted is not None:
                controller.done(fleet.scale(wanted), fleet)
