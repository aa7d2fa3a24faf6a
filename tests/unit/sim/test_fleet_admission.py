"""Admission in virtual time: overload sheds what would be late, and a flood delays the one who sends it."""

import random

from llmproxy.core.identity import Identity
from llmproxy.policy.admission.deadline import Slo as Objectives
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.queue import Bounds
from llmproxy.policy.routing.registry import build
from llmproxy.sim.fleet import Fleet, Job, Server, Who
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import Slo, percentile, score, ttft_s
from llmproxy.sim.trace import Arrival

PROFILE = Profile()
SLO = Slo(2.0, 1.5, 0.1)
FLOOD = "flood"
SECONDS = 40.0


def requests(seed: int, tenants: dict[str, float]) -> list[tuple[Arrival, str]]:
    """Poisson arrivals, so many a second of each tenant; a tenant's are the same whoever else there is."""
    found = []
    for tenant, rate in tenants.items():
        rng, at = random.Random(f"{seed}/{tenant}"), 0.0
        while (at := at + rng.expovariate(rate)) < SECONDS:
            found.append((Arrival(at, rng.randint(1000, 6000), rng.randint(20, 100)), tenant))
    return sorted(found, key=lambda one: one[0].at_s)


def replay(came: list[tuple[Arrival, str]], options: AdmissionOptions | None, servers: int = 8) -> list[Job]:
    fleet = Fleet(
        [Server(f"s{number}", PROFILE) for number in range(servers)],
        [build("expected_cost", {}, random.Random(0))],
        admission=options,
        who=lambda number: Who(Identity(came[number][1])),
    )
    jobs = fleet.run([arrival for arrival, _ in came])
    for gate in fleet._gates:
        assert not gate.waiting
        assert all(view.load.in_flight == 0 for view in gate.backends)
    return jobs


def p90_s(jobs: list[Job], came: list[tuple[Arrival, str]]) -> float:
    """Of the others, none of whom may be shed."""
    others = [job for job, (_, tenant) in zip(jobs, came, strict=True) if tenant != FLOOD]
    assert not any(job.shed for job in others)
    found = percentile(sorted(ttft_s(job) for job in others), 0.9)
    assert found is not None
    return found


def test_a_tenant_at_twenty_times_its_share_delays_itself() -> None:
    others = {f"t{number}": 1.0 for number in range(9)}
    options = AdmissionOptions(bounds=Bounds(tenant_waiting_max=50), tenant_share=0.5)
    rises, without = [], []
    for seed in range(2):
        alone, crowded = requests(seed, others), requests(seed, {**others, FLOOD: 20.0})
        before = p90_s(replay(alone, options), alone)
        rises.append(p90_s(replay(crowded, options), crowded) / before)
        without.append(p90_s(replay(crowded, None), crowded) / before)
    assert max(rises) < 1.2
    assert min(without) > 2.0


def test_overload_sheds_what_would_be_late_and_keeps_the_rest() -> None:
    came = requests(3, {"everyone": 26.0})
    options = AdmissionOptions(slo=Objectives(2.0, 1.5, 0.1))
    kept = score(replay(came, options, servers=4), SLO, PROFILE)
    lost = score(replay(came, None, servers=4), SLO, PROFILE)
    assert kept.goodput_rps > 2 * lost.goodput_rps
    assert kept.shed > 0
    assert kept.ttft_p99_s is not None
    assert kept.ttft_p99_s < 3.0


def test_a_fleet_with_room_is_left_alone() -> None:
    came = requests(4, {"everyone": 4.0})
    options = AdmissionOptions(slo=Objectives(2.0, 1.5, 0.1))
    kept = score(replay(came, options), SLO, PROFILE)
    assert kept.shed == 0
    assert kept.slo_attainment >= score(replay(came, None), SLO, PROFILE).slo_attainment - 0.01
