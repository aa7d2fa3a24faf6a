"""One controller at the traffic, in a process of its own."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.scaling.grids import Entry
from llmproxy.sim.scaling.fleet import Model
from llmproxy.sim.scaling.race import CONTROLLERS, MEAN_REPLICAS, Result, run
from llmproxy.sim.scaling.rivals.hpa import Hpa
from llmproxy.sim.scaling.rivals.keda import Keda
from llmproxy.sim.scaling.rivals.kpa import Kpa
from llmproxy.sim.scaling.traffic import arrivals, read_rates

_RIVALS = {"hpa": Hpa, "kpa": Kpa, "kpa_delayed": Kpa, "keda": Keda}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is replayed; made anew in each process, which is cheaper than to send it."""

    rates: Path
    cold_start_s: int
    days: float | None
    seed: int

    def seconds(self, model: Model) -> list[int]:
        """Arrivals in each second."""
        counts = arrivals(read_rates(self.rates), MEAN_REPLICAS * model.begins_per_s, Random(self.seed))
        return counts[: round(self.days * 86400)] if self.days else counts


def play(traffic: Traffic, entry: Entry | str) -> tuple[Entry | str, Result]:
    """A rival with options, or one of `llmproxy simulate --scale` by its name."""
    model = Model(cold_start_s=traffic.cold_start_s)
    seconds = traffic.seconds(model)
    if isinstance(entry, str):
        return entry, run(entry, CONTROLLERS[entry](model, seconds), model, seconds)
    return entry, run(entry.rival, _RIVALS[entry.rival](model, seconds, entry.options), model, seconds)
