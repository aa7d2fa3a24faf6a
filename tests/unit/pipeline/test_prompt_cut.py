"""The beginning of a prompt as a request of its own: what it keeps, and that it keeps nothing beyond."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.pipeline.prompt_cut import beginning
from llmproxy.pipeline.prompts import prompt_of

WORDS = "You are the assistant of a library. " * 400


def body(messages: Any, **fields: Any) -> bytes:
    return json.dumps({"model": "m", "user": "somebody", **fields, "messages": messages}).encode()


def test_whole_messages_and_a_part_of_the_next() -> None:
    messages = [{"role": "system", "content": WORDS[:3000]}, {"role": "user", "content": WORDS[:3000]}]
    found = beginning(body(messages, stream=True, metadata={"a": "b"}), 2 * BLOCK_BYTES)
    assert found is not None
    assert found.keys() == {"model", "messages"}, "nothing of who asked, and what for"
    system, user = found["messages"]
    assert system == messages[0]
    assert user["role"] == "user"
    assert WORDS.startswith(user["content"])
    assert 0 < len(user["content"]) < 3000
    assert prompt_of(body(found["messages"]), "m").blocks == prompt_of(body(messages), "m").blocks[:2]


def test_a_cut_inside_the_first_message() -> None:
    found = beginning(body([{"role": "system", "content": WORDS}, {"role": "user", "content": "secret"}]), BLOCK_BYTES)
    assert found is not None
    [system] = found["messages"]
    assert BLOCK_BYTES - 50 < len(system["content"]) < BLOCK_BYTES


def test_a_cut_behind_the_tools_keeps_them_and_no_message() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": WORDS[:2000]}}]
    size = len(json.dumps(tools)) + 5
    found = beginning(body([{"role": "user", "content": "secret"}], tools=tools, tool_choice="none"), size)
    assert found is not None
    assert (found["tools"], found["tool_choice"]) == (tools, "none")
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize("field", ["tools", "system", "instructions"])
def test_what_blocks_cover_only_in_part_is_not_kept(field: str) -> None:
    shaping = [{"type": "function", "function": {"name": "f", "description": WORDS + "secret"}}]
    assert beginning(body([{"role": "user", "content": "hello"}], **{field: shaping}), BLOCK_BYTES) is None


@pytest.mark.parametrize("fields", [{"documents": [{"text": "secret"}]}, {"chat_template": "{{ 'secret' }}"}])
def test_what_shapes_a_prompt_and_is_in_no_block_makes_it_one_that_cannot_be_cut(fields: dict[str, Any]) -> None:
    messages = [{"role": "system", "content": WORDS}]
    assert prompt_of(body(messages, **fields), "m").blocks == prompt_of(body(messages), "m").blocks
    assert beginning(body(messages, **fields), BLOCK_BYTES) is None
    assert beginning(body(messages, **dict.fromkeys(fields)), BLOCK_BYTES) == beginning(body(messages), BLOCK_BYTES)


def test_words_of_a_request_s_own_are_not_kept() -> None:
    choice = {"type": "function", "function": {"name": "secret"}}
    fields = {"tool_choice": choice, "chat_template_kwargs": {"user": "secret"}}
    messages = [
        {"role": "system", "name": "library", "content": WORDS, "refusal": "secret"},
        {"role": "user", "content": "hello"},
    ]
    found = beginning(body(messages, **fields), BLOCK_BYTES)
    assert found is not None
    assert found.keys() == {"model", "messages"}
    assert [one.keys() for one in found["messages"]] == [{"role", "name", "content"}]
    turned = beginning(body([{"content": WORDS, "role": "system"}]), BLOCK_BYTES)
    assert turned is not None
    assert turned["messages"][0]["role"] == "system"
    unknown = beginning(body([{"content": WORDS, "role": "secret"}]), BLOCK_BYTES)
    assert "secret" not in json.dumps(unknown)


def test_a_text_completion() -> None:
    found = beginning(json.dumps({"prompt": WORDS, "cache_salt": "s"}).encode(), BLOCK_BYTES)
    assert found is not None
    assert WORDS.startswith(found["prompt"])
    assert len(found["prompt"]) == BLOCK_BYTES - 1, "beside its quote"
    assert found["cache_salt"] == "s"


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{",
        b'{"messages": 5}',
        b'{"prompt": [1, 2, 3]}',
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}',
        b'{"messages": [{"role": "assistant", "content": null, "tool_calls": []}]}',
    ],
)
def test_what_is_no_text_cannot_be_cut(text: bytes) -> None:
    assert beginning(text, 20) is None


TEXTS = st.text(max_size=300)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 1500), st.booleans())
def test_whatever_is_said_what_is_kept_is_its_beginning(texts: list[str], size: int, ascii_only: bool) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    raw = json.dumps(messages, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    found = beginning(b'{"messages": ' + raw + b"}", size)
    if found is None:
        return
    kept = [one["content"] for one in found["messages"]]
    assert len(kept) <= len(texts)
    for whole, part in zip(texts, kept, strict=False):
        assert whole.startswith(part)
    assert kept[:-1] == texts[: len(kept) - 1]
    spelled = json.dumps(found["messages"], ensure_ascii=ascii_only).encode()
    # Beside what ends the last message, which the engine's template puts there as well.
    assert len(spelled) - len(b'"}]') <= size or kept == texts[: len(kept)]
