"""The fit, on times that a known profile makes: it finds the profile again."""

import random
from dataclasses import replace

import pytest

from llmproxy.calibrate.fit import DecodeTime, FitError, PromptTime, Size, fit
from llmproxy.calibrate.least_squares import errors, solve
from llmproxy.sim.profile import Profile

SIZE = Size(kv_blocks=1000, block_size=32, max_batched_tokens=2048, max_num_seqs=64)
STRAIGHT = Profile(
    name="x",
    kv_blocks=1000,
    block_size=32,
    max_batched_tokens=2048,
    max_num_seqs=64,
    overhead_s=0.0,
    base_s=0.02,
    token_s=1e-3,
    bend_tokens=1 << 30,
    base_above_s=0.02,
    token_above_s=1e-3,
    kv_s=2e-6,
    attention_s=4e-8,
    sequence_s=3e-3,
    ttft_s=5e-3,
)
BENT = replace(
    STRAIGHT, base_s=9e-3, token_s=4e-5, bend_tokens=256, base_above_s=0.04, token_above_s=3e-4, sequence_s=0.0
)
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BATCHES = ((1, 50), (2, 100), (4, 200), (8, 400), (16, 800), (1, 4000), (4, 16000))


def measured(profile: Profile, noise: float = 0.0) -> tuple[list[PromptTime], list[DecodeTime]]:
    rng = random.Random(1)

    def off() -> float:
        return 1 + rng.uniform(-noise, noise)

    prompts = [PromptTime(length, profile.isolated_ttft_s(length) * off()) for length in LENGTHS]
    return prompts, [DecodeTime(b, kv, profile.step_s(b, kv, 0, 0) * off()) for b, kv in BATCHES]


@pytest.mark.parametrize("profile", [STRAIGHT, BENT], ids=["straight", "bent"])
def test_a_known_profile_is_found_again(profile: Profile) -> None:
    found = fit("x", SIZE, *measured(profile))
    assert found.error < 1e-6
    assert found.profile.bend_tokens == profile.bend_tokens
    for decoding, kv, prefill, attended in [(1, 500, 0, 0), (12, 9000, 0, 0), (6, 3000, 700, 700 * 900)]:
        expected = profile.step_s(decoding, kv, prefill, attended)
        assert found.profile.step_s(decoding, kv, prefill, attended) == pytest.approx(expected, rel=1e-3)
    assert found.profile.isolated_ttft_s(3000) == pytest.approx(profile.isolated_ttft_s(3000), rel=1e-3)


def test_all_factors_of_a_straight_line_are_told_apart() -> None:
    found = fit("x", SIZE, *measured(STRAIGHT)).profile
    for name in ("base_s", "token_s", "kv_s", "attention_s", "sequence_s", "ttft_s"):
        assert getattr(found, name) == pytest.approx(getattr(STRAIGHT, name), rel=1e-3), name


@pytest.mark.parametrize("profile", [STRAIGHT, BENT], ids=["straight", "bent"])
def test_with_noise_what_it_predicts_is_as_near_as_the_noise(profile: Profile) -> None:
    found = fit("x", SIZE, *measured(profile, noise=0.05))
    assert 0 < found.error < 0.06
    assert found.error <= found.worst
    for length in (100, 700, 3000):
        assert found.profile.isolated_ttft_s(length) == pytest.approx(profile.isolated_ttft_s(length), rel=0.12)
    for b, kv in ((3, 300), (12, 2400)):
        assert found.profile.step_s(b, kv, 0, 0) == pytest.approx(profile.step_s(b, kv, 0, 0), rel=0.12)


def test_noise_makes_no_bend() -> None:
    assert fit("x", SIZE, *measured(STRAIGHT, noise=0.03)).profile.bend_tokens == STRAIGHT.bend_tokens


def test_sizes_are_taken_over() -> None:
    profile = fit("an engine", SIZE, *measured(STRAIGHT)).profile
    assert (profile.name, profile.kv_blocks, profile.block_size) == ("an engine", 1000, 32)
    assert (profile.max_batched_tokens, profile.max_num_seqs) == (2048, 64)


def test_too_little_is_refused() -> None:
    prompts, decodes = measured(STRAIGHT)
    with pytest.raises(FitError, match="three lengths"):
        fit("x", SIZE, [*prompts[:2], *prompts[:2]], decodes)
    with pytest.raises(FitError, match="two sizes"):
        fit("x", SIZE, prompts, decodes[:1])
    with pytest.raises(FitError, match="nothing"):
        fit("x", SIZE, [PromptTime(5, 0.0), *prompts], decodes)


def test_no_factor_is_negative() -> None:
    # The plain least squares would be 2 and -1.
    rows, values = [(1.0, 0.0), (1.0, 1.0), (2.0, 3.0)], [2.0, 1.0, 1.0]
    factors = solve(rows, values)
    assert min(factors) == 0.0
    best = sum(one * one for one in errors(rows, values, factors))
    rng = random.Random(2)
    for _ in range(500):
        other = [rng.uniform(0, 3), rng.uniform(0, 3)]
        assert sum(one * one for one in errors(rows, values, other)) >= best - 1e-12


def test_what_is_not_determined_is_nothing() -> None:
    assert solve([(1.0, 0.0, 2.0), (2.0, 0.0, 4.0)], [3.0, 6.0]) in ([3.0, 0.0, 0.0], [0.0, 0.0, 1.5])
