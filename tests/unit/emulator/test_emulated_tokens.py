"""The tokenizer and the text the emulated model writes."""

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.emulator.tokens import Script, block_hashes, decode, encode

# NUL is what fills the last token up.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(TEXTS)
def test_decoding_undoes_encoding(text: str) -> None:
    assert decode(encode(text)) == text


@given(TEXTS, TEXTS)
def test_equal_beginnings_are_equal_tokens(head: str, tail: str) -> None:
    whole = len(head.encode()) // 4
    assert encode(head + tail)[:whole] == encode(head)[:whole]


def test_a_script_depends_on_the_prompt_alone() -> None:
    prompt = encode("why is the sky blue")
    assert Script(prompt, 20).words == Script(list(prompt), 20).words
    others = {tuple(Script(encode(f"question {number}"), 20).words) for number in range(50)}
    assert len(others) > 25
    assert Script(prompt, 20, variant=1).words != Script(prompt, 20).words


def test_words_are_tokens() -> None:
    script = Script(encode("hello"), 30)
    assert encode("".join(script.words)) == script.ids


@given(st.integers(0, 20), st.text(max_size=30))
def test_a_broken_off_answer_is_continued(written: int, text: str) -> None:
    prompt = encode(text + "?")
    uninterrupted = Script(prompt, 20)
    resumed = Script(prompt + uninterrupted.ids[:written], 20 - written)
    assert uninterrupted.ids[:written] + resumed.ids == uninterrupted.ids


def test_a_stop_string_ends_the_text_before_it() -> None:
    full = Script(encode("hello"), 30)
    mark = full.words[7].strip()
    script = Script(encode("hello"), 30, stop=["never written", mark])
    first = full.words.index(f" {mark}")
    assert script.stop == mark
    assert "".join(script.words) == "".join(full.words[:first]) + " "
    assert script.ids == full.ids[: first + 1]
    assert len(script.words) == len(script.ids)


def test_without_the_stop_string_the_length_decides() -> None:
    script = Script(encode("hello"), 5, stop=["never written"])
    assert (script.stop, len(script.ids)) == (None, 5)


def test_block_hashes_cover_everything_before_them() -> None:
    ids = list(range(40))
    hashes = block_hashes(ids, 16)
    assert len(hashes) == 2
    assert block_hashes(ids[:32], 16) == hashes
    assert block_hashes([99, *ids[1:]], 16)[1] != hashes[1]
    assert block_hashes(ids, 16, salt="mine")[0] != hashes[0]
