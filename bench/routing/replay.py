"""One replay, and the search for the highest load that a policy can take."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.routing.experiments import BY_STEP, EXPERIMENTS, POLICIES, SCRAPE_OWN_S, SCRAPE_S, Conditions
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.sim.backends import parse_backends
from llmproxy.sim.fleet import Fleet
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import SLO_DEFAULT, Score, parse_slo, score
from llmproxy.sim.trace import Arrival, spread

Row = dict[str, Any]
"""`experiment`, `policy`, `load`, `seed`, and the fields of `Score`."""

ATTAINMENT: Final = 0.9
"""Share of the requests that must be within the SLO."""
_FIRST_LOAD: Final = 1.0
_STRIDE: Final = 1.3
_PRECISION: Final = 1.02
_LOAD_MIN: Final = 0.05
_LOAD_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """One policy in one experiment with one seed."""

    experiment: str
    policy: str
    seed: int


def run(trace: Sequence[Arrival], jitter_s: float, task: Task) -> list[Row]:
    """The rows of a task: one, or one for each load that was tried."""
    experiment = EXPERIMENTS[task.experiment]

    def at(load: float) -> Row:
        found = replay(trace, jitter_s, task.policy, experiment.conditions, load, task.seed)
        return {**asdict(task), "load": round(load, 4), **asdict(found)}

    if experiment.loads:
        return [at(load) for load in experiment.loads]
    rows: list[Row] = []

    def fits(load: float) -> bool:
        rows.append(at(load))
        return bool(rows[-1]["slo_attainment"] >= ATTAINMENT)

    highest(fits)
    return rows


def replay(
    trace: Sequence[Arrival],
    jitter_s: float,
    policy: str,
    conditions: Conditions,
    load: float,
    seed: int,
    admission: AdmissionOptions | None = None,
) -> Score:
    """The figures of one replay. Arrivals and ties are those that `llmproxy simulate` has with this seed."""
    arrivals = spread(trace, load, jitter_s, _rng(seed, "arrivals"))
    contender, profile, errors = POLICIES[policy], Profile(), _rng(seed, "estimates")
    names = ["policy", *(f"policy/{number}" for number in range(1, conditions.proxies))]
    off = conditions.estimate_error
    fleet = Fleet(
        [backend.server(profile) for backend in parse_backends(conditions.backends)],
        [contender.build(_rng(seed, name)) for name in names],
        scrape_s=SCRAPE_S.get(policy, SCRAPE_OWN_S),
        stale_s=conditions.stale_s,
        by_step=policy in BY_STEP,
        estimate=lambda arrival: errors.uniform(1 - off, 1 + off),
        admission=admission,
    )
    return score(fleet.run(arrivals), parse_slo(SLO_DEFAULT), profile)


def highest(fits: Callable[[float], bool]) -> float:
    """The highest load that fits, to 2 %: a bracket first, then bisection. 0 when none does."""
    low = high = 0.0
    load = _FIRST_LOAD
    while not low or not high:
        if fits(load):
            low = load
            if load == _LOAD_MAX:
                return load
            load = min(load * _STRIDE, _LOAD_MAX)
        else:
            high = load
            if load == _LOAD_MIN:
                return 0.0
            load = max(load / _STRIDE, _LOAD_MIN)
    while high / low > _PRECISION:
        middle = (low * high) ** 0.5
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _rng(seed: int, purpose: str) -> random.Random:
    return random.Random(f"{seed}/{purpose}")
