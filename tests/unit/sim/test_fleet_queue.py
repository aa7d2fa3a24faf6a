"""A fleet whose backends have a `max_concurrency`: the production queue in virtual time."""

import random

import pytest

from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.policy.admission.queue import Bounds
from llmproxy.policy.routing.registry import build
from llmproxy.sim.fleet import Fleet, Job, Server
from llmproxy.sim.profile import Profile
from llmproxy.sim.trace import Arrival

FLAT = Profile(overhead_s=0, base_s=1, token_s=0, base_above_s=1, token_above_s=0, kv_s=0, attention_s=0)
"""Every step lasts a second, so a request lasts as many seconds as it has output tokens."""


def run(
    *arrivals: tuple[float, int], places: tuple[int | None, ...] = (1,), queue_max: int = 9, wait_s: float = 99.0
) -> list[Job]:
    """Arrivals are (seconds, output tokens); backends have so many places."""
    servers = [Server(f"s{index}", FLAT, 1.0, limit) for index, limit in enumerate(places)]
    policy = build("least_connections", {}, random.Random(0))
    options = AdmissionOptions(bounds=Bounds(waiting_max=queue_max, wait_s=wait_s))
    fleet = Fleet(servers, [policy], admission=options)
    jobs = fleet.run([Arrival(at, 10, output) for at, output in arrivals])
    assert all(view.load.in_flight == 0 for gate in fleet._gates for view in gate.backends)
    return jobs


def ends(jobs: list[Job]) -> list[float | None]:
    return [job.done_at for job in jobs]


def test_who_finds_no_place_waits_in_line() -> None:
    jobs = run((0, 3), (1, 2), (2, 1))
    assert ends(jobs) == [3, 5, 6]
    assert [job.first_token_at for job in jobs] == [1, 4, 6]
    assert not any(job.shed for job in jobs)


def test_a_full_line_sheds() -> None:
    jobs = run((0, 3), (1, 2), (2, 1), (2.5, 1), queue_max=1)
    assert [job.shed for job in jobs] == [False, False, True, True]
    assert ends(jobs) == [3, 5, None, None]


def test_a_wait_that_is_too_long_sheds_and_makes_room_in_line() -> None:
    jobs = run((0, 5), (1, 2), (3.75, 1), queue_max=1, wait_s=2.5)
    # The second leaves the line at 3.5, so the third can stand in it, and gets the place at 5.
    assert [job.shed for job in jobs] == [False, True, False]
    assert ends(jobs) == [5, None, 6]


def test_a_wait_that_is_too_long_ends_though_nobody_comes() -> None:
    jobs = run((0, 10), (1, 2), (8, 2), wait_s=2.5)
    assert [job.shed for job in jobs] == [False, True, False]
    jobs = run((0, 10), (1, 2), wait_s=2.5)
    assert ends(jobs) == [10, None]


def test_newcomers_go_where_there_is_room() -> None:
    jobs = run((0, 9), (0.5, 9), (1, 9), places=(2, 1))
    assert sorted(job.server.placed for job in jobs) == [1, 2, 2]
    jobs = run((0, 9), (0.5, 9), (1, 9), (1.5, 1), places=(1, None))
    assert sorted(job.server.backend.id for job in jobs) == ["s0", "s1", "s1", "s1"]


def test_without_limits_nobody_waits() -> None:
    jobs = run(*((0.0, 2) for _ in range(5)), places=(None,))
    assert ends(jobs) == [2] * 5


def test_limits_need_admission() -> None:
    with pytest.raises(ValueError, match="need admission"):
        Fleet([Server("s", FLAT, 1.0, 1)], [build("random", {}, random.Random(0))])


def test_prefixes_are_found_whatever_the_size_of_a_block() -> None:
    for block_tokens, cached in ((512, 1024), (128, 1408), (1024, 1024)):
        profile = Profile(block_size=block_tokens, kv_blocks=100)
        fleet = Fleet([Server("s", profile)], [build("random", {}, random.Random(0))])
        one = Arrival(0, 1536, 1, (1, 2, 3))
        jobs = fleet.run([one, Arrival(100, 1536, 1, (1, 2, 3)), Arrival(200, 1536, 1, (9, 8, 7))])
        assert [job.cached_tokens for job in jobs] == [0, cached, 0]
