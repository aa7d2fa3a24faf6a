"""The probes, put to modelled engines in virtual time: what they measure gives the engine's own profile back."""

import random
from dataclasses import replace
from typing import Any

import pytest

from llmproxy.calibrate.engine import EngineError, Facts
from llmproxy.calibrate.fit import Size, fit
from llmproxy.calibrate.probes import Found, Plan, Probing
from llmproxy.calibrate.run import Wanted, size_of
from llmproxy.sim.profile import Profile
from tests.harness.virtual_engine import VirtualEngine

PLAN = Plan(prompt_tokens_max=3000, sequences_max=16, prompt_repeats=1, decode_repeats=1)
SIZE = Size(kv_blocks=4000, block_size=32, max_batched_tokens=2048, max_num_seqs=16)
PROFILE = Profile(
    kv_blocks=4000,
    block_size=32,
    max_batched_tokens=2048,
    max_num_seqs=16,
    overhead_s=0.0,
    base_s=0.03,
    token_s=1e-3,
    bend_tokens=1 << 30,
    base_above_s=0.03,
    token_above_s=1e-3,
    kv_s=4e-6,
    attention_s=5e-8,
    sequence_s=4e-3,
    ttft_s=6e-3,
)


async def probe(*engines: VirtualEngine, plan: Plan = PLAN) -> tuple[Found, list[str]]:
    told: list[str] = []
    whom: Any = engines
    return await Probing(whom, "m", plan, told.append, random.Random(1)).run(), told


async def test_an_engine_s_own_profile_comes_out() -> None:
    found, told = await probe(VirtualEngine(PROFILE))
    made = fit("x", SIZE, found.prompts, found.decodes)
    assert made.worst < 0.01
    for name in ("base_s", "token_s", "kv_s", "attention_s", "sequence_s", "ttft_s"):
        assert getattr(made.profile, name) == pytest.approx(getattr(PROFILE, name), rel=0.05), name
    assert [one.sequences for one in found.decodes] == [1, 2, 4, 8, 16, 1, 4]
    assert [one.prompt_tokens for one in found.prompts] == [16, 32, 64, 128, 256, 512, 1024, 2048]
    assert len(told) == len(found.prompts) + len(found.decodes) + 1


async def test_a_faster_engine_has_shorter_times() -> None:
    slow, _ = await probe(VirtualEngine(PROFILE))
    fast, _ = await probe(VirtualEngine(PROFILE.at(3)))
    assert fast.decodes[3].seconds == pytest.approx(slow.decodes[3].seconds / 3, rel=0.01)


async def test_no_prompt_is_longer_than_is_patience_for() -> None:
    found, _ = await probe(VirtualEngine(PROFILE), plan=replace(PLAN, longest_s=0.5))
    # 256 tokens take 0.3 s, so 512 would take more than 0.5.
    assert max(one.prompt_tokens for one in found.prompts) == 256


async def test_several_engines_are_asked_side_by_side() -> None:
    alone, _ = await probe(VirtualEngine(PROFILE))
    both, _ = await probe(VirtualEngine(PROFILE), VirtualEngine(PROFILE))
    assert both.decodes[0].seconds == pytest.approx(alone.decodes[0].seconds, rel=0.01)
    # Of two that differ, it is what lies between.
    mixed, _ = await probe(VirtualEngine(PROFILE), VirtualEngine(PROFILE.at(2)))
    assert alone.decodes[0].seconds / 2 < mixed.decodes[0].seconds < alone.decodes[0].seconds


@pytest.mark.parametrize("caches", [True, False])
async def test_whether_prompts_are_cached_is_seen(caches: bool) -> None:
    found, _ = await probe(VirtualEngine(PROFILE, caches=caches))
    assert found.caches is caches


async def test_answers_in_one_piece_are_no_measurement() -> None:
    with pytest.raises(EngineError, match="does not stream: whole answers come in one piece"):
        await probe(VirtualEngine(PROFILE, in_one_piece=True))


def test_what_nobody_tells_is_assumed_and_said() -> None:
    told = Facts("m", 10_000, 32, 4096, 16, 1024)
    assert size_of(told, Wanted(())) == (Size(312, 32, 1024, 16), ())
    size, assumed = size_of(replace(told, block_size=None, max_num_seqs=None, max_batched_tokens=None), Wanted(()))
    assert size == Size(625, 16, 2048, 256)
    assert [
        word in line for word, line in zip(("blocks", "--max-num-seqs", "--max-batched-tokens"), assumed, strict=True)
    ]
    size, assumed = size_of(told, Wanted((), max_num_seqs=8, max_batched_tokens=512))
    assert (size.max_num_seqs, size.max_batched_tokens, assumed) == (8, 512, ())
