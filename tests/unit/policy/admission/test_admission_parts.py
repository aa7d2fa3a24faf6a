"""Lanes' conditions, and hedges."""

import pytest

from llmproxy.core.backend import Backend, BackendSpec
from llmproxy.core.condition import parse_condition
from llmproxy.policy.admission.hedge import HedgeOptions, Hedges
from llmproxy.policy.admission.tenant_share import AUTO, TenantShare


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


BACKENDS = [Backend(BackendSpec(f"b{number}", f"http://b{number}")) for number in range(9)]
HIGH, NORMAL = 0, 1


class TestTenantShare:
    def seen(self, share, tenants, now=0.0, band=NORMAL):
        for tenant in tenants:
            share.seen(tenant, band, now)

    def begins(self, share, tenant, count, now=0.0, band=NORMAL):
        for backend in BACKENDS[:count]:
            share.began(tenant, band, backend, now)

    def ends(self, share, tenant, count, now):
        for backend in BACKENDS[:count]:
            share.ended(tenant, backend, now)

    @pytest.mark.parametrize("part", [0.5, AUTO])
    def test_a_tenant_that_is_alone_may_have_all(self, part):
        share = TenantShare(part)
        self.seen(share, ["a"])
        self.begins(share, "a", 9)
        assert share.closed(4, 1.0) == frozenset()

    def test_beside_others_it_keeps_to_its_share(self):
        share = TenantShare(0.5)
        self.seen(share, "ab")
        self.begins(share, "a", 1)
        self.seen(share, "a", 1.0)
        assert share.closed(4, 1.0) == frozenset()
        self.begins(share, "a", 1, 1.0)
        assert share.closed(4, 1.0) == {"a"}
        assert share.closed(4, 60.5) == frozenset()
        self.seen(share, "b", 60.5)
        assert share.closed(4, 60.5) == {"a"}
        self.ends(share, "a", 1, 60.5)
        assert share.closed(4, 60.5) == frozenset()

    @pytest.mark.parametrize("part", [0.1, AUTO])
    def test_one_always_may(self, part):
        share = TenantShare(part)
        self.seen(share, "ab")
        assert share.closed(2, 0.0) == frozenset()

    @pytest.mark.parametrize("backends", [1, 2])
    def test_nobody_waits_for_an_idle_fleet(self, backends):
        share = TenantShare(AUTO)
        self.seen(share, "abcdefghij")
        self.begins(share, "a", 1)
        self.ends(share, "a", 1, 5.0)
        assert share.closed(backends, 5.0) == frozenset()

    def test_one_backend_is_kept_for_those_who_ask_seldom(self):
        share = TenantShare(AUTO)
        self.seen(share, ("flood", *"bcdefghi"))
        self.begins(share, "flood", 6)
        self.begins(share, "flood", 6)
        assert share.closed(8, 0.0) == frozenset()
        self.begins(share, "flood", 7)
        assert share.closed(8, 0.0) == {"flood"}

    def test_what_others_used_lately_is_kept_for_them(self):
        share = TenantShare(AUTO)
        self.seen(share, "bcd")
        for tenant in "bcd":
            self.begins(share, tenant, 1)
        for tenant in "bcd":
            self.ends(share, tenant, 1, 60.0)
        self.seen(share, ("flood", *"bcdefghi"), 60.0)
        self.begins(share, "flood", 4, 60.0)
        # Three in the mean, and one for chance.
        assert share.closed(8, 60.0) == {"flood"}
        assert share.closed(8, 90.0) == frozenset()

    def test_an_equal_part_and_one_more_is_always_there(self):
        share = TenantShare(AUTO)
        self.seen(share, "ab")
        self.begins(share, "a", 4)
        self.begins(share, "b", 4)
        assert share.closed(8, 60.0) == frozenset()
        share.began("a", NORMAL, BACKENDS[5], 60.0)
        assert share.closed(8, 60.0) == {"a"}

    def test_of_few_backends_a_flood_leaves_one_idle(self):
        share = TenantShare(AUTO)
        self.seen(share, ("flood", *"bcdefghi"))
        self.begins(share, "flood", 1)
        self.begins(share, "b", 1)
        self.ends(share, "flood", 1, 10.0)
        self.ends(share, "b", 1, 10.0)
        assert share.closed(2, 10.0) == frozenset()
        share.began("b", NORMAL, BACKENDS[1], 10.0)
        # It has had more than twice a ninth; so has b, but it is the mean that counts, and b's fades.
        assert share.closed(2, 10.0) == {"flood", "b"}
        share.ended("b", BACKENDS[1], 10.0)
        assert share.closed(2, 10.0) == frozenset()
        share.began("c", NORMAL, BACKENDS[1], 25.0)
        assert not {"flood", "b"} & share.closed(2, 25.0)

    def test_nothing_is_kept_for_worse_priorities(self):
        share = TenantShare(AUTO)
        self.seen(share, ["acme"], band=HIGH)
        self.seen(share, "abcdefgh")
        self.begins(share, "a", 3)
        self.begins(share, "acme", 4, band=HIGH)
        assert share.closed(4, 60.0) == {"a"}
        self.seen(share, ["other"], 60.0, band=HIGH)
        assert share.closed(4, 60.0) == {"a", "acme"}

    def test_whoever_is_gone_is_forgotten(self):
        share = TenantShare(AUTO)
        for number in range(5000):
            self.seen(share, [f"t{number}"], number * 0.001)
            self.begins(share, f"t{number}", 1, number * 0.001)
        for number in range(5000):
            self.ends(share, f"t{number}", 1, 5.0)
        assert len(share._seen) == len(share._computing) == sum(share._seen_in) == 2000
        assert [mean.count for mean in share._bands] == [0, 0, 0, 0]
        assert share._busy == {}
        self.seen(share, ["last"], 99.0)
        assert len(share._seen) == 1
        assert share._computing == {}
