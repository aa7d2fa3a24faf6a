"""Tiers, keys' own limits and where limits are counted."""

import pytest

from llmproxy.config import parse
from llmproxy.config.quota import parse_count
from llmproxy.core.limits import MICRO, SIZE_MAX, Quota


@pytest.mark.parametrize(
    ("value", "count"), [(7, 7), ("7", 7), ("20k", 20_000), (" 1.5M ", 1_500_000), ("0.5k", 500), ("2 G", 2 * 10**9)]
)
def test_counts(value, count):
    assert parse_count(value) == count


@pytest.mark.parametrize("value", ["", "k", "1.5", "0.0001k", "-1", "20kb", "1e3", 1.5, True, None, "9" * 40])
def test_what_is_no_count(value):
    with pytest.raises(ValueError, match="is not a count"):
        parse_count(value)


def test_tiers_out_of_the_box(with_minimal):
    tiers = {name: tier.tier(name) for name, tier in parse(with_minimal("")).all_tiers.items()}
    assert tiers["free"].quota == Quota(requests_per_minute=10)
    assert tiers["paid"].quota == Quota(requests_per_minute=60)
    assert tiers["enterprise"].quota == Quota()
    assert [tier.priority for tier in tiers.values()] == ["low", "normal", "high"]


def test_a_tier_of_the_file_takes_the_place_of_the_built_in_one(with_minimal):
    config = parse(with_minimal("tiers: {free: {tokens_per_minute: 20k, priority: low}, gold: {concurrency: 3}}"))
    assert set(config.all_tiers) == {"free", "paid", "enterprise", "gold"}
    assert config.all_tiers["free"].quota() == Quota(tokens_per_minute=20_000)


def test_all_numbers_arrive(with_minimal):
    text = """
tiers:
  t:
    requests_per_minute: 60
    tokens_per_minute: 200k
    concurrency: 5
    burst: {requests: 20, tokens: 1k}
    budgets: {tokens_per_day: 5M, tokens_per_month: 6M, cost_per_day: 0.5, cost_per_month: 12.25}
    models: {m: {requests_per_minute: 1}}
limits: {prices: {m: {prompt: 0.15}}}
"""
    tier = parse(with_minimal(text)).all_tiers["t"].tier("t")
    assert tier.quota == Quota(60, 200_000, 20, 1000, 5, 5_000_000, 6_000_000, MICRO // 2, 12_250_000)
    assert tier.models == {"m": Quota(requests_per_minute=1)}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tiers: {t: {requests_per_minute: 0}}", "1: tiers.t.requests_per_minute: must be at least 1"),
        ("tiers: {t: {tokens_per_minute: lots}}", "1: tiers.t.tokens_per_minute: 'lots' is not a count"),
        (f"tiers: {{t: {{concurrency: {SIZE_MAX + 1}}}}}", "1: tiers.t.concurrency: must be at most"),
        ("tiers: {t: {rpm: 1}}", "1: tiers.t.rpm: unknown key"),
        ("tiers: {t: {burst: {tokens: 5}}}", "1: tiers.t: burst.tokens is of use together with tokens_per_minute only"),
        ("tiers: {t: {priority: urgent}}", "1: tiers.t.priority: must be one of"),
        ("tiers: {t: {budgets: {cost_per_day: 5}}}", "1: tiers.t.budgets.cost_per_day: nothing costs anything without"),
        (
            "keys: [{name: k, tier: fre, value: x}]",
            "1: keys[0].tier: there is no tier 'fre'; did you mean `free`?",
        ),
        ("limits: {store: redis}", "1: limits.store: must begin with redis://, "),
        ('limits: {store: "sentinel://a"}', "1: limits.store: lacks the master's name"),
        ('limits: {store: "rediss://a?ca=/nowhere/ca.pem"}', "1: limits.store: there is no file '/nowhere/ca.pem'"),
        ("limits: {on_store_failure: maybe}", "1: limits.on_store_failure: must be one of"),
        ("limits: {store_timeout: 0s}", "1: limits.store_timeout: must be more than 0"),
    ],
)
def test_mistakes_are_explained(errors_of, with_minimal, text, error):
    [found] = errors_of(with_minimal(text))
    assert found.startswith(error)


def test_a_tiers_models_must_be_there(errors_of):
    text = "tiers: {t: {models: {lama: {concurrency: 1}}}}\nmodels: {llama: {pool: main}}\n"
    text += 'pools: {main: {backends: ["http://a"]}}\n'
    assert errors_of(text) == ["1: tiers.t.models.lama: there is no model 'lama'; did you mean `llama`?"]


def test_a_password_in_the_stores_url_is_not_shown(errors_of, with_minimal):
    text = with_minimal('limits: {store: "redis://:verysecret@host:0"}')
    [found] = errors_of(text)
    assert "verysecret" not in found
    assert "verysecret" not in repr(parse(with_minimal('limits: {store: "redis://:verysecret@host"}')))
