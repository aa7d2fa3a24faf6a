"""The figures of a replay, on jobs whose times are written by hand."""

from math import inf

import pytest

from llmproxy.core.request import Request
from llmproxy.sim.fleet import Job
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import Score, Slo, parse_slo, percentile, score
from llmproxy.sim.trace import Arrival

FLAT = Profile(overhead_s=0, base_s=0.1, token_s=0, bend_tokens=10**9, kv_s=0, attention_s=0, max_batched_tokens=1000)
"""Every step lasts 0.1 s."""


def job(at: float, first: float, done: float, prompt: int = 100, output: int = 2, cached: int = 0) -> Job:
    made = Job(0, Arrival(at, prompt, output), Request())
    made.first_token_at, made.done_at = first, done
    made.generated, made.cached_tokens = output, cached
    return made


def shed(at: float) -> Job:
    made = Job(0, Arrival(at, 100, 2), Request())
    made.shed = True
    return made


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (10, 0.9, 9), (10, 0.99, 10), (100, 0.99, 99), (200, 0.99, 198), (7, 0, 1)],
)
def test_percentiles_are_by_nearest_rank(count: int, share: float, rank: int) -> None:
    assert percentile(range(1, count + 1), share) == rank


def test_no_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None


def test_all_figures() -> None:
    jobs = [
        job(0, 1, 1, prompt=100, output=1, cached=50),  # TTFT 1; no TPOT
        job(2, 5, 5.4, prompt=300, output=5, cached=50),  # TTFT 3, TPOT 0.1
        job(10, 10.5, 12.5, output=3),  # TTFT 0.5, TPOT 1: too slow
        shed(20),
    ]
    found = score(jobs, Slo(ttft_s=2, tpot_s=0.2), FLAT)
    assert found == Score(
        ttft_mean_s=1.5,
        ttft_p50_s=1.0,
        ttft_p90_s=3.0,
        ttft_p99_s=3.0,
        tpot_p99_s=1.0,
        hit_rate=0.2,
        slo_attainment=0.25,  # the first of four
        goodput_rps=0.05,  # one in twenty seconds
        shed=1,
    )


def test_a_long_prompt_may_take_longer() -> None:
    # 5,000 tokens are five steps of 0.1 s.
    slo = Slo(ttft_s=0.3, ttft_scaled=2)
    assert slo.ttft_limit_s(5000, FLAT) == pytest.approx(1.0)
    assert slo.ttft_limit_s(500, FLAT) == pytest.approx(0.3)
    assert Slo(ttft_s=0.3).ttft_limit_s(5000, FLAT) == 0.3
    jobs = [job(0, 0.9, 1, prompt=5000), job(0, 0.9, 1, prompt=500)]
    assert score(jobs, slo, FLAT).slo_attainment == 0.5


def test_everything_shed() -> None:
    found = score([shed(0), shed(1)], Slo(), FLAT)
    assert found == Score(None, None, None, None, None, 0.0, 0.0, 0.0, 2)


def test_all_at_once_is_measured_to_the_last_answer() -> None:
    assert score([job(3, 4, 5), job(3, 4, 7)], Slo(), FLAT).goodput_rps == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("ttft=2s,ttft_scaled=1.5,tpot=100ms", Slo(2, 1.5, 0.1)),
        ("tpot=50ms", Slo(inf, 0, 0.05)),
        (" ttft = 250ms ", Slo(0.25, 0, inf)),
        ("ttft_scaled=3", Slo(0, 3, inf)),
    ],
)
def test_slo_in_words(text: str, slo: Slo) -> None:
    assert parse_slo(text) == slo


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is none of ttft=TIME"),
        ("itl=1s", "'itl=1s' is none of"),
        ("ttft", "'ttft' is none of"),
        ("ttft=2s,ttft=3s", "ttft is given twice"),
        ("ttft=soon", "'soon' is not a duration"),
        ("ttft_scaled=-1", "'-1' is not a factor"),
        ("ttft_scaled=much", "'much' is not a factor"),
    ],
)
def test_slo_that_says_nothing(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_slo(text)
    assert words in str(caught.value)
