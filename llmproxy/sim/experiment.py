"""An experiment: a trace, a fleet, and the cases (policy, load, seed) it is replayed in.

A case depends on nothing but itself and the experiment: run alone or beside others, first or last, it gives the same
figures. All policies meet the same arrivals at the same load and seed, so their figures can be compared pairwise.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.sim.backends import SimulatedBackend
from llmproxy.sim.contender import Contender
from llmproxy.sim.fleet import Fleet, Job
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import Score, Slo, percentile, score, ttft_s
from llmproxy.sim.trace import Arrival, spread

CURVE_POINTS: Final = 200


@dataclass(frozen=True, slots=True)
class Experiment:
    """What all cases have in common. Requests that admission holds wait in the production queue."""

    trace: tuple[Arrival, ...]
    backends: tuple[SimulatedBackend, ...]
    profile: Profile
    slo: Slo
    jitter_s: float = 0.0
    admission: AdmissionOptions | None = None
    """None: everything is sent on as it comes."""


@dataclass(frozen=True, slots=True)
class Case:
    policy: Contender
    load: float
    seed: int


@dataclass(frozen=True, slots=True)
class Replay:
    """A case and what came of it."""

    case: Case
    score: Score
    ttft_curve: tuple[float, ...]
    """`CURVE_POINTS` percentiles of TTFT, the last is the longest; empty when all were shed."""
    work: tuple[float, ...]
    """For each backend, the prompt tokens it computed for its speed, relative to the fleet's mean."""
    requests: tuple[int, ...]
    """For each backend, the requests it was sent."""


def cases(policies: Sequence[Contender], loads: Sequence[float], seeds: int) -> list[Case]:
    """Every policy at every load with every seed, from 0 on."""
    return [Case(policy, load, seed) for policy in policies for load in loads for seed in range(seeds)]


def fitting(trace: Sequence[Arrival], profile: Profile) -> tuple[Arrival, ...]:
    """The requests that a whole KV cache has room for; engines refuse the others."""
    return tuple(one for one in trace if one.prompt_tokens + max(one.output_tokens, 1) <= profile.kv_tokens)


def replay(experiment: Experiment, case: Case, progress: Callable[[int], None] | None = None) -> Replay:
    """Run one case. `progress` is told how many requests have come."""
    arrivals = spread(experiment.trace, case.load, experiment.jitter_s, _rng(case, "arrivals"))
    policy = case.policy.build(_rng(case, "policy"))
    servers = [backend.server(experiment.profile) for backend in experiment.backends]
    fleet = Fleet(servers, [policy], admission=experiment.admission)
    jobs = fleet.run(arrivals, progress)
    ttfts = sorted(ttft_s(job) for job in jobs if not job.shed)
    points = (percentile(ttfts, (point + 1) / CURVE_POINTS) for point in range(CURVE_POINTS))
    return Replay(
        case,
        score(jobs, experiment.slo, experiment.profile),
        tuple(point for point in points if point is not None),
        _work(experiment, jobs),
        tuple(server.placed for server in servers),
    )


def _rng(case: Case, purpose: str) -> random.Random:
    return random.Random(f"{case.seed}/{purpose}")  # noqa: S311 (a simulation)


def _work(experiment: Experiment, jobs: Sequence[Job]) -> tuple[float, ...]:
    place = {backend.id: index for index, backend in enumerate(experiment.backends)}
    work = [0.0] * len(place)
    for job in jobs:
        if not job.shed:
            index = place[job.server.backend.id]
            work[index] += (job.prompt_tokens - job.cached_tokens) / experiment.backends[index].speed
    mean = sum(work) / len(work)
    return tuple(one / mean if mean else 0.0 for one in work)
