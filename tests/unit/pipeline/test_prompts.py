"""Prompts become blocks: equal beginnings have equal hashes, and nothing else does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.pipeline.prompts import BLOCKS_MAX, chain, prompt_of


def body(messages, **fields):
    return json.dumps({"model": "m", **fields, "messages": messages}).encode()


def turns(count, size=900):
    return [{"role": "user", "content": f"{number} " + "x" * size} for number in range(count)]


def common(one, other):
    depth = 0
    while depth < min(len(one), len(other)) and one[depth] == other[depth]:
        depth += 1
    return depth


def test_a_further_turn_keeps_all_full_blocks():
    for count in range(1, 12):
        before, after = prompt_of(body(turns(count)), "m"), prompt_of(body(turns(count + 1)), "m")
        assert after.blocks[: len(before.blocks)] == before.blocks
        assert after.size > before.size


@given(st.binary(max_size=4 * BLOCK_BYTES), st.integers(0, 4 * BLOCK_BYTES), st.integers(1, 255))
def test_a_change_changes_its_block_and_all_behind_it(text, place, by):
    if place >= len(text):
        place = len(text)
        other = text + b"!"
    else:
        other = text[:place] + bytes([text[place] ^ by]) + text[place + 1 :]
    one, two = chain(text, 1), chain(other, 1)
    assert common(one, two) == min(place // BLOCK_BYTES, len(one))
    assert len(one) == len(text) // BLOCK_BYTES
    assert not set(one[common(one, two) :]) & set(two[common(one, two) :])


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"secret": b"s"},
        {"cache_salt": "a"},
        {"tools": [{"type": "function"}]},
        {"system": "You are kind."},
        {"instructions": "Be brief."},
    ],
)
def test_what_engines_do_not_share_has_other_hashes(other):
    plain = prompt_of(body(turns(5)), "m").blocks
    secret, model = other.pop("secret", b""), other.pop("model", "m")
    assert not set(plain) & set(prompt_of(body(turns(5), **other), model, secret).blocks)


@pytest.mark.parametrize("field", ["prompt", "input"])
def test_prompts_and_inputs_too(field):
    short = prompt_of(json.dumps({field: "y" * 5000}).encode(), None)
    longer = prompt_of(json.dumps({field: "y" * 9000}).encode(), None)
    assert len(short.blocks) == 2
    assert longer.blocks[:2] == short.blocks


def test_a_picture_is_not_its_bytes():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    prompt = prompt_of(body([{"role": "user", "content": [picture]}]), "m")
    assert prompt.size < 5000


def test_very_long_prompts_are_bounded():
    assert len(prompt_of(body([{"role": "user", "content": "z" * (3 << 20)}]), "m").blocks) == BLOCKS_MAX


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_has_no_prompt(broken):
    assert prompt_of(broken, "m").size == 0


@pytest.mark.parametrize("messages", [None, [], 5, ""])
def test_odd_prompts_have_no_blocks(messages):
    assert list(prompt_of(body(messages), "m").blocks) == []
