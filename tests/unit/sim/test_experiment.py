"""Backends and policies by name, and that a case depends on nothing but itself."""

import random
from dataclasses import replace

import pytest

from llmproxy.config import PoolConfig
from llmproxy.core.ports import RoutingPolicy
from llmproxy.policy.routing.options import OptionError
from llmproxy.sim.backends import configured_backends, parse_backends, with_limits_of
from llmproxy.sim.contender import Contender
from llmproxy.sim.experiment import CURVE_POINTS, Experiment, cases, fitting, replay
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import Slo
from llmproxy.sim.trace import Arrival


def busy_trace() -> tuple[Arrival, ...]:
    rng = random.Random(7)
    return tuple(
        Arrival(rng.random() * 30, rng.randrange(600, 6000), rng.randrange(1, 40), tuple(range(rng.randrange(2))))
        for _ in range(120)
    )


EXPERIMENT = Experiment(busy_trace(), parse_backends("3"), Profile(), Slo(2, 1.5, 0.1), jitter_s=2.0)


def test_backends_in_words() -> None:
    backends = parse_backends("2@2.2, 1")
    assert [(one.id, one.speed, one.weight) for one in backends] == [
        ("backend-1", 2.2, 2.2),
        ("backend-2", 2.2, 2.2),
        ("backend-3", 1.0, 1.0),
    ]
    assert backends[0].server(Profile()).profile.speed == 2.2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is neither COUNT nor COUNT@SPEED"),
        ("many", "'many' is neither"),
        ("2@", "'2@' is neither"),
        ("2@fast", "'2@fast' is neither"),
        ("8,,1", "'' is neither"),
        ("-1", "'-1' is neither"),
        ("0", "more than 0"),
        ("2@0", "more than 0"),
        ("1025", "1025 backends are more than 1024"),
    ],
)
def test_backends_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_backends(text)
    assert words in str(caught.value)


def test_backends_of_a_pool() -> None:
    pool = PoolConfig.model_validate(
        {"backends": [{"url": "http://a:1", "id": "a", "weight": 3, "max_concurrency": 5}, "http://b:1"]}
    )
    first, second = configured_backends("chat", pool)
    assert (first.id, first.speed, first.weight, first.max_concurrency) == ("a", 1.0, 3.0, 5)
    assert second.max_concurrency is None
    limited = with_limits_of(pool, parse_backends("3"))
    assert [one.max_concurrency for one in limited] == [5, None, 5]


def test_policies_by_name_and_by_class() -> None:
    policy: RoutingPolicy = Contender("expected_cost", {"own": 2}).build(random.Random(0))
    assert type(policy).__name__ == "ExpectedCost"
    named = Contender("llmproxy.policy.routing.random_choice:RandomChoice").build(random.Random(0))
    assert type(named).__name__ == "RandomChoice"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("expected_costs", 'did you mean "expected_cost"?'),
        ("llmproxy.nothing:X", "there is no module 'llmproxy.nothing'"),
        ("llmproxy.core.backend:X", "llmproxy.core.backend has no 'X'"),
        ("llmproxy.core.backend:Backend", "is not a policy class with an options_type"),
        (":X", "importing"),
    ],
)
def test_policies_there_are_not(name: str, words: str) -> None:
    with pytest.raises(OptionError) as caught:
        Contender(name).build(random.Random(0))
    assert words in str(caught.value)


def test_a_case_gives_the_same_alone_and_after_others() -> None:
    every = cases([Contender("expected_cost"), Contender("power_of_two")], [0.8, 1.5], 2)
    assert len(every) == 8
    together = [replay(EXPERIMENT, case) for case in every]
    assert replay(EXPERIMENT, every[5]) == together[5]
    scores = {(one.case.policy.name, one.case.load, one.case.seed): one.score for one in together}
    assert len({repr(score) for score in scores.values()}) == 8


def test_policies_meet_the_same_arrivals() -> None:
    came: list[list[float]] = []

    def note(name: str, seed: int) -> list[int]:
        told: list[int] = []
        [case] = [one for one in cases([Contender(name)], [1.0], seed + 1) if one.seed == seed]
        came.append([round(one, 9) for one in replay(EXPERIMENT, case, told.append).ttft_curve])
        return told

    assert note("round_robin", 0) == note("least_connections", 0) == list(range(1, 121))
    alone = replace(EXPERIMENT, backends=parse_backends("1"))
    [first] = cases([Contender("round_robin")], [1.0], 1)
    [second] = cases([Contender("expected_cost")], [1.0], 1)
    # With one backend there is nothing to choose, so only the arrivals could differ.
    assert replay(alone, first).score == replay(alone, second).score
    assert came[0] != came[1]


def test_what_a_replay_tells_of_backends() -> None:
    [case] = cases([Contender("round_robin")], [1.0], 1)
    found = replay(replace(EXPERIMENT, backends=parse_backends("2@2,2")), case)
    assert sum(found.requests) == 120
    assert len(found.work) == 4
    assert sum(found.work) == pytest.approx(4)
    assert len(found.ttft_curve) == CURVE_POINTS
    assert found.score.ttft_p90_s == found.ttft_curve[CURVE_POINTS * 9 // 10 - 1]


def test_requests_that_no_cache_holds_are_left_out() -> None:
    trace = [Arrival(0, 900, 100), Arrival(0, 901, 100), Arrival(0, 1000, 0)]
    assert fitting(trace, Profile(kv_blocks=10, block_size=100)) == (trace[0],)
