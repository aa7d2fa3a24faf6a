"""What is learned of answers' lengths, and how times are written."""

import random

import pytest

from llmproxy.core.limits import Kind, Limit, Scope, Taken, Unit
from llmproxy.policy.limits.answers import duration, header_pairs, tightest
from llmproxy.policy.limits.estimate import Estimator


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (999, "999ms"),
        (1000, "1s"),
        (6000, "6s"),
        (6001, "7s"),
        (59_001, "1m0s"),
        (62_000, "1m2s"),
        (3_600_000, "1h0m0s"),
        (10_805_000, "3h0m5s"),
    ],
)
def test_times_as_the_headers_write_them(ms, text):
    assert duration(ms) == text


def test_the_least_remaining_is_shown_and_budgets_are_not():
    limits = [
        Limit("a", Kind.BUCKET, Unit.TOKENS, Scope.TENANT, 100, 100),
        Limit("b", Kind.BUCKET, Unit.TOKENS, Scope.KEY, 50, 60),
        Limit("c", Kind.DAY, Unit.TOKENS, Scope.KEY, 50),
        Limit("d", Kind.BUCKET, Unit.REQUESTS, Scope.KEY, 1, 1),
    ]
    taken = Taken(0, [70, 30, 5, 0], [1, 2, 3, 4])
    assert tightest(limits, taken, Unit.TOKENS) == (60, 30, 2)
    assert tightest(limits[:1], Taken(0), Unit.TOKENS) is None


def test_lines_and_pairs_are_the_same_headers():
    assert header_pairs(b"a: 1\r\nb: x: y\r\n") == ((b"a", b"1"), (b"b", b"x: y"))


def test_a_share_of_answers_is_not_longer_than_what_is_reserved():
    rng = random.Random(7)
    estimator = Estimator(quantile=0.8)
    lengths = [int(rng.lognormvariate(5, 1)) + 1 for _ in range(2000)]
    for length in lengths:
        estimator.of("t", "m").learn(length)
    reserved = estimator.of("t", "m").output_tokens()
    assert 0.75 <= sum(length <= reserved for length in lengths) / len(lengths) <= 0.92


def test_it_follows_a_change():
    estimator = Estimator()
    for _ in range(500):
        estimator.of("t", "m").learn(1000)
    for _ in range(600):
        estimator.of("t", "m").learn(10)
    assert estimator.of("t", "m").output_tokens() <= 12


def test_a_new_tenant_begins_with_what_others_of_the_model_use():
    estimator = Estimator()
    assert estimator.of("a", "m").output_tokens() == 256
    assert estimator.of("a", "m").prompt_tokens(4000) == 1000
    for _ in range(20):
        estimator.of("a", "m").learn(40, prompt_tokens=500, prompt_bytes=1000)
    assert estimator.of("b", "m").output_tokens() == 45
    assert estimator.of("b", "m").output_tokens(max_tokens=3) == 3
    assert 1600 <= estimator.of("b", "m").prompt_tokens(4000) <= 2000
    assert estimator.of("b", "other").output_tokens() == 256


def test_never_nothing():
    estimator = Estimator()
    for _ in range(20):
        estimator.of("a", "m").learn(0)
    assert estimator.of("a", "m").output_tokens() >= 1
    assert estimator.of("a", "m").output_tokens(max_tokens=0) == 1
    assert estimator.of("a", "m").prompt_tokens(0) == 1


def test_the_least_recently_used_is_forgotten():
    estimator = Estimator(pairs_max=4)
    for number in range(10):
        for _ in range(10):
            estimator.of(f"t{number}", "m").learn(1000)
    assert len(estimator) == 4
    assert estimator.of("t0", "m").output_tokens() == estimator.of("new", "m").output_tokens() == 1024
