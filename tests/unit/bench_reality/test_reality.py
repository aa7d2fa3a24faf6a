"""The pieces of the reality check that decide what it says."""

import random
from collections.abc import Sequence
from itertools import takewhile

import pytest

from bench.reality.emulated import Figures, ranked
from bench.reality.model import simulate
from bench.reality.traffic import mixed_load, of_trace
from llmproxy.emulator.tokens import block_hashes, encode
from llmproxy.sim.backends import parse_backends
from llmproxy.sim.contender import Contender
from llmproxy.sim.fleet import Fleet
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import ttft_s
from llmproxy.sim.trace import Arrival

TRACE = [
    Arrival(number * 0.7, 700 + 310 * (number % 7), 5 + number % 9, tuple(range(number % 4, 2 + number % 4)))
    for number in range(60)
]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many at their beginnings are equal."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def test_texts_have_the_sizes_and_the_prefixes_of_the_trace() -> None:
    questions = of_trace(TRACE, faster=4.0)
    hashes = [block_hashes(encode(one.prompt), 512) for one in questions]
    for one, question, found in zip(TRACE, questions, hashes, strict=True):
        assert len(encode(question.prompt)) == one.prompt_tokens
        assert question.at_s == one.at_s / 4
        for other, others in zip(TRACE, hashes, strict=True):
            shared = common(one.blocks, other.blocks)
            shared = min(shared, one.prompt_tokens // 512, other.prompt_tokens // 512)
            if one is not other:
                assert common(found, others) == shared


def test_stepping_gives_the_same_times_as_the_fleet_that_coasts() -> None:
    found = simulate(TRACE, 3, Profile(), "expected_cost")
    servers = [backend.server(Profile()) for backend in parse_backends("3")]
    jobs = Fleet(servers, [Contender("expected_cost").build(random.Random("0/policy"))]).run(TRACE)
    assert found.ttfts_s == pytest.approx([ttft_s(job) for job in jobs])
    assert len(found.itls_s) == sum(one.output_tokens - 1 for one in TRACE)


def test_only_what_is_far_apart_is_ranked() -> None:
    simulated = {"a": Figures(1.0, 3.0), "b": Figures(1.1, 2.0), "c": Figures(1.3, 3.1)}
    measured = {"a": Figures(1.0, 3.0), "b": Figures(0.5, 3.5), "c": Figures(0.9, 3.6)}
    pairs = {(one.figure, one.better, one.worse): one.agreed for one in ranked(simulated, measured)}
    assert pairs == {
        ("ttft_mean_s", "a", "c"): False,
        ("ttft_mean_s", "b", "c"): True,
        ("ttft_p90_s", "b", "a"): False,
        ("ttft_p90_s", "b", "c"): True,
    }


def test_the_load_is_the_share_that_was_asked_for() -> None:
    profile = Profile(base_s=0.05, token_s=2.5e-3, bend_tokens=1 << 30)
    half, quarter = (mixed_load(profile, 2, share, 200.0, 1.0) for share in (0.5, 0.25))
    assert len(half) == pytest.approx(2 * len(quarter), rel=0.15)
    assert [one.prompt for one in half[:5]] != [one.prompt for one in half[5:10]]
    assert half[-1].at_s == pytest.approx(200.0, rel=0.4)
    assert half == mixed_load(profile, 2, 0.5, 200.0, 1.0)
