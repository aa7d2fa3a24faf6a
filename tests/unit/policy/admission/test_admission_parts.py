"""Lanes' conditions, and hedges."""

import pytest

from llmproxy.core.condition import parse_condition
from llmproxy.policy.admission.hedge import HedgeOptions, Hedges
from llmproxy.policy.admission.tenant_share import TenantShare


@pytest.mark.parametrize(
    ("text", "tokens", "holds"),
    [
        ("prompt_tokens > 16k", 16_000, False),
        ("prompt_tokens > 16k", 16_001, True),
        ("prompt_tokens>=1.5k", 1500, True),
        ("prompt_tokens == 7", 7, True),
        ("prompt_tokens > 1k and prompt_tokens <= 2k", 1500, True),
        ("prompt_tokens > 1k and prompt_tokens <= 2k", 2500, False),
        ("body_bytes < 1m", 5, False),
    ],
)
def test_conditions(text, tokens, holds):
    assert parse_condition(text).holds(tokens, 2_000_000) is holds


@pytest.mark.parametrize(
    "text",
    ["", "prompt_tokens", "prompt_tokens > many", "tokens > 5", "prompt_tokens > 5 or 1", "__import__('os') > 1",
     "prompt_tokens > 1 and", "prompt_tokens => 1", "prompt_tokens > -1", "prompt_tokens > 1kk"],
)  # fmt: skip
def test_what_is_no_condition(text):
    with pytest.raises(ValueError, match=r"no comparison|to compare"):
        parse_condition(text)


def learned(options):
    hedges = Hedges(options)
    for number in range(2000):
        hedges.sent()
        hedges.first_token(0.1 if number % 10 else 1.0)
    return hedges


def test_hedges_are_off_by_default():
    assert not learned(HedgeOptions()).try_hedge(99.0, saturated=False)


def test_a_late_first_token_is_hedged_within_the_budget():
    hedges = learned(HedgeOptions(share=0.01))
    assert 0.1 < hedges.after_s() <= 1.2
    assert not hedges.try_hedge(0.05, saturated=False)
    assert not hedges.try_hedge(5.0, saturated=True)
    granted = 0
    while hedges.try_hedge(5.0, saturated=False):
        granted += 1
    assert granted == 10
    hedges.give_back()
    assert hedges.try_hedge(5.0, saturated=False)


def test_nothing_is_known_at_first():
    hedges = Hedges(HedgeOptions(share=0.5))
    hedges.first_token(1.0)
    assert hedges.after_s() is None


class TestTenantShare:
    def test_a_tenant_that_is_alone_may_have_all(self):
        share = TenantShare(0.5)
        share.seen("a", 0.0)
        for _ in range(9):
            share.began("a")
        assert share.closed(4, 1.0) == frozenset()

    def test_beside_others_it_keeps_to_its_share(self):
        share = TenantShare(0.5)
        share.seen("a", 0.0)
        share.seen("b", 1.0)
        share.began("a")
        assert share.closed(4, 1.0) == frozenset()
        share.began("a")
        assert share.closed(4, 1.0) == {"a"}
        assert share.closed(4, 61.5) == frozenset()
        share.ended("a")
        assert share.closed(4, 1.0) == frozenset()
        share.ended("a")
        assert share._computing == {}

    def test_one_always_may(self):
        share = TenantShare(0.1)
        share.seen("a", 0.0)
        share.seen("b", 0.0)
        assert share.closed(2, 0.0) == frozenset()
