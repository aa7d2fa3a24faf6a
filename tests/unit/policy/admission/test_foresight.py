"""What is learned of waiting: the trust in expected waits, and times to first tokens without an estimate."""

import random

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.policy.admission.foresight import FirstTokens, Patience
from llmproxy.policy.admission.saturation.adaptive import AdaptiveConcurrency, AdaptiveOptions


def test_expected_waits_are_believed_as_far_as_they_came_true():
    """Waits are in truth three times as long as expected, give or take: hardly anybody is let wait in vain."""
    patience, rng = Patience(missing=0.05), random.Random(1)
    waited = in_vain = 0
    for number in range(8000):
        expected_s = rng.uniform(0.0, 2.0)
        if expected_s * patience.factor(0, 1.9) > 1.9:
            continue
        late = expected_s * rng.uniform(2.0, 4.0) > 1.9
        patience.looks_again()
        patience.learn(0, 1.9, late)
        if number > 2000:
            waited += 1
            in_vain += late
    assert 0.02 < in_vain / waited < 0.08
    assert patience.factor(0, 1.9) > 2.0


def test_each_priority_and_length_of_wait_is_learned_for_itself():
    patience = Patience()
    patience.learn(2, 1.5, True)
    assert patience.factor(2, 1.9) > 1.0
    assert patience.factor(0, 1.5) == patience.factor(2, 8.0) == 1.0


def test_trust_has_bounds():
    patience = Patience()
    for _ in range(5000):
        patience.looks_again()
        patience.learn(0, 1.0, True)
        patience.learn(1, 1.0, False)
    assert patience.factor(0, 1.0) == 4.0
    assert patience.factor(1, 1.0) == 0.25


def test_deadlines_that_pass_together_are_one_event():
    patience = Patience()
    for _ in range(200):
        patience.learn(0, 1.0, True)
    assert patience.factor(0, 1.0) < 1.05
    patience.looks_again()
    patience.learn(0, 1.0, True)
    assert patience.factor(0, 1.0) > 1.05


def test_first_tokens_are_expected_as_they_came_lately():
    firsts = FirstTokens()
    assert firsts.expected_s(1000) == 0.0
    firsts.learn(1000, 0.4)
    assert firsts.expected_s(900) == 0.4
    assert firsts.expected_s(5000) == 0.0
    for _ in range(100):
        firsts.learn(1000, 0.8)
    assert 0.79 < firsts.expected_s(1000) <= 0.8


def test_a_short_prompt_that_waits_for_a_step_is_not_late():
    backend = Backend(BackendSpec("b", "http://b"))
    adaptive = AdaptiveConcurrency(AdaptiveOptions(first=10, tolerance=2.0, grace_s=0.2))
    adaptive.first_token(backend, 100, 0.02)
    adaptive.first_token(backend, 100, 0.15)
    assert adaptive.limit(backend) == 10
    adaptive.first_token(backend, 100, 0.25)
    assert adaptive.limit(backend) == 9
