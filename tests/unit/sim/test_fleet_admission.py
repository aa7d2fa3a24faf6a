"""Admission in virtual time: overload sheds what would be late, and a flood delays the one who sends it."""

import random
from collections.abc import Callable

from llmproxy.core.identity import Identity
from llmproxy.policy.admission.deadline import Slo as Objectives
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.queue import Bounds
from llmproxy.policy.admission.ticket import Reason, Ticket
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


def weighted_tokens(jobs: list[Job]) -> int:
    return sum(job.prompt_tokens + 2 * job.generated for job in jobs if not job.shed)


def beside_a_flood(servers: int, rate: float) -> tuple[list[float], list[float], list[float]]:
    """Nine tenants at `rate` and one at twenty times that, of two seeds: by how much the nine's p90 grows, by how much
    it would without shares, and how much of the work gets done that would then."""
    others = {f"t{number}": rate for number in range(9)}
    options = AdmissionOptions(bounds=Bounds(tenant_waiting_max=50))
    unbounded = AdmissionOptions(bounds=Bounds(tenant_waiting_max=50), tenant_share=1.0)
    rises, without, work = [], [], []
    for seed in range(2):
        alone, crowded = requests(seed, others), requests(seed, {**others, FLOOD: 20.0 * rate})
        before = p90_s(replay(alone, options, servers), alone)
        jobs, free = replay(crowded, options, servers), replay(crowded, unbounded, servers)
        rises.append(p90_s(jobs, crowded) / before)
        without.append(p90_s(free, crowded) / before)
        work.append(weighted_tokens(jobs) / weighted_tokens(free))
    return rises, without, work


def test_a_tenant_at_twenty_times_its_share_delays_itself() -> None:
    """By default, and at little cost: what the flood does without is what others need not wait for."""
    rises, without, work = beside_a_flood(8, 1.0)
    assert max(rises) < 1.15
    assert min(without) > 1.3
    assert min(work) > 0.82


def test_of_few_backends_too_one_is_left_for_whoever_comes_next() -> None:
    rises, _, work = beside_a_flood(4, 0.5)
    assert max(rises) < 1.2
    assert min(work) > 0.75
    rises, without, work = beside_a_flood(2, 0.25)
    assert sum(rises) - 2 < (sum(without) - 2) / 2
    assert min(work) > 0.7


def test_beside_tenants_who_ask_seldom_a_flood_loses_next_to_nothing() -> None:
    came = requests(0, {**{f"t{number}": 0.1 for number in range(9)}, FLOOD: 20.0})
    bounds = Bounds(tenant_waiting_max=50)
    kept = weighted_tokens(replay(came, AdmissionOptions(bounds=bounds)))
    assert kept > 0.98 * weighted_tokens(replay(came, AdmissionOptions(bounds=bounds, tenant_share=1.0)))


def test_tenants_who_all_want_more_get_equal_service() -> None:
    """Jain's index of weighted tokens, with requests of one tenant four times as large and of one twice as many."""
    rng, came = random.Random(7), []
    for tenant, rate, size in (("a", 8.0, 3000), ("b", 8.0, 750), ("c", 16.0, 3000), ("d", 8.0, 3000)):
        at = 0.0
        while (at := at + rng.expovariate(rate * 3000 / size)) < SECONDS:
            came.append((Arrival(at, rng.randint(size // 2, size * 3 // 2), rng.randint(20, 100)), tenant))
    came.sort(key=lambda one: one[0].at_s)
    jobs = replay(came, AdmissionOptions(bounds=Bounds(tenant_waiting_max=50)), servers=4)
    # All have a line until the last arrival; what is served of it afterwards is another matter.
    service = dict.fromkeys("abcd", 0.0)
    for job, (_, tenant) in zip(jobs, came, strict=True):
        if not job.shed and job.first_token_at is not None and 5.0 < job.first_token_at < SECONDS:
            service[tenant] += job.prompt_tokens + 2 * job.generated
    jain = sum(service.values()) ** 2 / (len(service) * sum(value**2 for value in service.values()))
    assert jain >= 0.95


def test_overload_sheds_what_would_be_late_and_keeps_the_rest() -> None:
    came = requests(3, {"everyone": 26.0})
    options = AdmissionOptions(slo=Objectives(2.0, 1.5, 0.1))
    kept = score(replay(came, options, servers=4), SLO, PROFILE)
    lost = score(replay(came, None, servers=4), SLO, PROFILE)
    assert kept.goodput_rps > 2 * lost.goodput_rps
    assert kept.shed > 0
    assert kept.ttft_p99_s is not None
    assert kept.ttft_p99_s < 3.0


def test_who_has_to_go_is_told_when_it_comes() -> None:
    """Three times what the fleet can take, a tenth of it of high priority: expected waits know nothing of that."""
    rng, came, urgent = random.Random(5), [], []
    for arrival, _ in requests(5, {"everyone": 40.0}):
        urgent.append(rng.random() < 0.1)
        came.append((arrival, "acme" if urgent[-1] else f"d{rng.randrange(8)}"))
    options = AdmissionOptions(slo=Objectives(2.0), bounds=Bounds(waiting_max=400, tenant_waiting_max=100))
    fleet = Fleet(
        [Server(f"s{number}", PROFILE) for number in range(4)],
        [build("expected_cost", {}, random.Random(0))],
        admission=options,
        who=lambda number: Who(Identity(came[number][1]), 0 if urgent[number] else 2),
    )
    admission = fleet._gates[0].admission
    assert admission is not None
    on_arrival: list[Reason | None] = []
    enter = admission.enter

    def noted(ticket: Ticket[Job], now: float, shed: Callable[[Ticket[Job], Reason], None]) -> Reason | None:
        on_arrival.append(enter(ticket, now, shed))
        return on_arrival[-1]

    admission.enter = noted  # type: ignore[method-assign]
    jobs = fleet.run([arrival for arrival, _ in came])
    shed = sum(job.shed for job in jobs)
    told = sum(reason is Reason.DEADLINE for reason in on_arrival)
    assert shed > len(jobs) / 2
    assert told > 0.9 * shed
    high = [job for job, is_urgent in zip(jobs, urgent, strict=True) if is_urgent]
    assert sum(not job.shed for job in high) > 0.95 * len(high)


def test_without_estimates_nearly_as_much_is_answered_in_time() -> None:
    came = requests(6, {"everyone": 40.0})
    options = AdmissionOptions(slo=Objectives(2.0, 0.0), bounds=Bounds(waiting_max=400))
    good = {}
    for policy in ("expected_cost", "least_connections"):
        fleet = Fleet(
            [Server(f"s{number}", PROFILE, max_concurrency=8) for number in range(4)],
            [build(policy, {}, random.Random(0))],
            admission=options,
        )
        jobs = fleet.run([arrival for arrival, _ in came])
        good[policy] = sum(not job.shed and ttft_s(job) <= 2.0 for job in jobs)
    assert good["least_connections"] > 0.8 * good["expected_cost"]


def test_a_fleet_with_room_is_left_alone() -> None:
    came = requests(4, {"everyone": 4.0})
    options = AdmissionOptions(slo=Objectives(2.0, 1.5, 0.1))
    kept = score(replay(came, options), SLO, PROFILE)
    assert kept.shed == 0
    assert kept.slo_attainment >= score(replay(came, None), SLO, PROFILE).slo_attainment - 0.01
