"""What is learned of prompts: the beginnings that many have in common, and nothing that only one has said."""

import json
import random
from typing import Any

import pytest

from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.pipeline import hot_prompts
from llmproxy.pipeline.hot_prompts import COUNTED_MAX, DEPTH_MAX, KEPT_MAX, HotPrompts
from llmproxy.pipeline.prompts import prompt_of


def text(seed: int, blocks: float) -> str:
    rng = random.Random(seed)
    return "".join(rng.choices("abcdefgh ", k=int(blocks * BLOCK_BYTES)))


def body(system: str, user: str, model: str = "m") -> bytes:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return json.dumps({"model": model, "messages": messages}).encode()


def see(hot: HotPrompts, content: bytes) -> None:
    hot.learn(prompt_of(content, json.loads(content)["model"]).blocks, content)


def said(request: dict[str, Any]) -> str:
    return "".join(message["content"] for message in request["messages"])


def test_what_only_one_request_has_said_is_not_kept() -> None:
    hot = HotPrompts()
    for seed in range(50):
        see(hot, body(text(seed, 2), text(1000 + seed, 2)))
    assert hot.hottest(8) == []


def test_the_common_beginning_is_kept_and_no_more() -> None:
    hot, system = HotPrompts(), text(1, 3.5)
    for seed in range(2, 12):
        see(hot, body(system, "private: " + text(seed, 3)))
    [found] = hot.hottest(8)
    assert system.startswith(said(found))
    assert len(said(found)) > 2.9 * BLOCK_BYTES
    assert "private" not in json.dumps(found)


def test_the_hottest_first_and_so_many() -> None:
    hot = HotPrompts()
    systems = [text(seed, 2.5) for seed in range(6)]
    for seed in range(60):
        # The first is asked for most often, the last least.
        for number, system in enumerate(systems):
            if seed % (number + 1) == 0:
                see(hot, body(system, text(seed + 100, 1.5)))
    found = [said(one) for one in hot.hottest(3)]
    assert [system.startswith(one) for system, one in zip(systems, found, strict=False)] == [True] * 3


def test_models_are_told_apart() -> None:
    hot, system = HotPrompts(), text(1, 2.5)
    for seed in range(4):
        for model in ("base", "adapter"):
            see(hot, body(system, text(seed + 10, 1), model))
    assert {one["model"] for one in hot.hottest(8)} == {"base", "adapter"}


def test_what_covers_another_takes_its_place() -> None:
    hot, system = HotPrompts(), text(1, 2.5)
    long = system + text(2, 4)
    for seed in range(10):
        see(hot, body(system, text(seed + 10, 1)))
        see(hot, body(long, text(seed + 50, 1)))
    found = [said(one) for one in hot.hottest(8)]
    assert len(found) == 1, "the shorter one is the beginning of the longer"
    assert long.startswith(found[0])
    assert len(found[0]) > 5 * BLOCK_BYTES


def test_it_stays_bounded_and_what_is_hot_outlasts_what_is_not() -> None:
    hot, system = HotPrompts(), text(1, 2.5)
    rng = random.Random(0)
    for number in range(1500):
        # Pairs, so that each is kept for a while; with blocks made up, as text for them would take long to hash.
        see(hot, body(system, f"{number}"))
        once = [rng.getrandbits(64) for _ in range(60)]
        for _ in range(2):
            hot.learn(once, body(text(number + 10, 0.1), ""))
        assert len(hot._counts) <= COUNTED_MAX
        assert len(hot._kept) <= KEPT_MAX
        assert all(len(blocks) <= DEPTH_MAX for blocks in hot._kept)
    assert said(hot.hottest(1)[0])[:500] == system[:500]


def test_what_cannot_be_cut_is_not_tried_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hot, tried = HotPrompts(), []

    def in_vain(content: bytes, size: int) -> None:
        tried.append(size)

    monkeypatch.setattr(hot_prompts, "beginning", in_vain)
    for _ in range(20):
        hot.learn([1, 2, 3], b"")
    assert tried == [3 * BLOCK_BYTES]


def test_what_was_hot_is_forgotten_in_time() -> None:
    hot, old, new = HotPrompts(), text(1, 2.5), text(2, 2.5)
    for seed in range(2000):
        see(hot, body(old, f"{seed}"))
    for seed in range(60_000):
        hot.learn([1, 2], b"")
        if seed % 10 == 0:
            see(hot, body(new, f"{seed}"))
    [only] = hot.hottest(8)
    assert new.startswith(said(only))
