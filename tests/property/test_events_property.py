"""Event-streams: however they are cut up, the client sees the same, and the same is counted."""

import json

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.outcome import Outcome
from llmproxy.pipeline.event_reader import EVENT_MAX_BYTES, EventReader
from llmproxy.telemetry.metrics import Histogram
from llmproxy.wire.relay import DROP, HOLD, PASS

SORRY = b'data: {"error": {"message": "sorry"}}\n\n'
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["\n\n", '"usage"', "error", "abort", '"finish_reason": "abort"', 'data: {"error"', ": x", "[DONE]", "\r\n\r\n"]
)


class Watcher:
    def __init__(self):
        self.firsts = 0

    def first(self, now):
        self.firsts += 1

    def progress(self, gap_s):
        """Not counted here."""


def data(value):
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode())


def chunk(text, **more):
    return data({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}}], **more})


GOOD = st.one_of(
    TEXTS.map(chunk),
    TEXTS.map(lambda text: chunk(text, usage=None)),
    TEXTS.map(lambda text: chunk(text, usage={"prompt_tokens": 2, "completion_tokens": 1})),
    TEXTS.map(lambda text: b"event: message\n" + chunk(text)),
    TEXTS.map(lambda text: data({"error": {"code": 400, "message": text}})),
    st.just(b"id: 7\n" + data({"choices": []})),
    st.just(data({"choices": [{"delta": {}, "finish_reason": "stop"}]})),
)
COMMENTS = st.sampled_from([b": keep-alive", b":", b": error", b': "usage"'])
USAGE = st.just(data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}))
FAILED = st.sampled_from(
    [
        data({"choices": [{"delta": {}, "finish_reason": "abort"}]}),
        data({"error": {"message": "engine dead", "code": 500}}),
        b"event: error\n" + data({"type": "error", "error": {"type": "api_error"}}),
    ]
)
TAILS = st.sampled_from([b"", b"", b"data: [DO", b"data: {}\n", b"\n", b": x"])


@st.composite
def streams(draw, *, failing=False):
    """Blocks as (bytes, kind), in one style of line ends."""
    kinds = [GOOD.map(lambda block: (block, "good"))] * 3
    kinds += [COMMENTS.map(lambda block: (block, "comment")), USAGE.map(lambda block: (block, "usage"))]
    blocks = draw(st.lists(st.one_of(kinds), max_size=6))
    if failing:
        blocks = [
            (draw(GOOD), "good"),
            *blocks,
            (draw(FAILED), "failed"),
            *draw(st.lists(st.one_of(kinds), max_size=2)),
        ]
    if all(kind != "good" for _, kind in blocks):
        # An end with nothing before it is a failure.
        blocks.append((data({"choices": [{"delta": {}, "finish_reason": "stop"}]}), "good"))
    blocks.append((b"data: [DONE]", "good"))
    crlf = draw(st.booleans())
    return [((block + b"\n\n").replace(b"\n", b"\r\n") if crlf else block + b"\n\n", kind) for block, kind in blocks]


@st.composite
def cut(draw, stream):
    places = sorted(draw(st.sets(st.integers(1, max(len(stream) - 1, 1)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]
    return [piece for piece in pieces if piece]


def through(pieces, *, drop_usage=False):
    """What a client sees of `pieces`, by the relay's rules; and the reader."""
    watcher = Watcher()
    clock = iter(range(1, 10**6))
    reader = EventReader(watcher, lambda: float(next(clock)), Histogram((1.0,)), lambda: SORRY)
    reader.drop_usage = drop_usage
    out = held = b""
    for piece in pieces:
        verdict = reader.read(piece)
        if verdict is PASS or isinstance(verdict, bytes):
            out += held + piece if verdict is PASS else verdict
            held = b""
            reader.committed = True
        elif verdict is HOLD:
            held += piece
        else:
            held = b""
    end = reader.end()
    out += end if isinstance(end, bytes) else b"" if end is DROP else held
    assert watcher.firsts <= 1
    return out, reader


@given(st.data(), streams(), TAILS)
def test_all_of_it_passes(data, blocks, tail):
    stream = b"".join(block for block, _ in blocks) + tail
    pieces = data.draw(cut(stream))
    out, reader = through(pieces)
    assert out == stream
    assert reader.failure is None
    _, whole = through([stream])
    assert (reader.tokens.prompt, reader.tokens.completion) == (whole.tokens.prompt, whole.tokens.completion)


@given(st.data(), streams(), TAILS)
def test_only_the_usage_chunk_is_dropped(data, blocks, tail):
    stream = b"".join(block for block, _ in blocks) + tail
    shown = b"".join(block for block, kind in blocks if kind != "usage") + tail
    out, reader = through(data.draw(cut(stream)), drop_usage=True)
    assert out == shown
    if any(kind == "usage" for _, kind in blocks):
        assert reader.tokens.completion in (9, 1)
        assert reader.tokens.prompt in (5, 2)


@given(st.data(), streams(failing=True), st.booleans())
def test_a_failure_ends_what_the_client_sees(data, blocks, drop_usage):
    """The first event has gone out already. The failed one is replaced, and nothing comes behind it."""
    (first, _), *rest = blocks
    pieces = [first, *data.draw(cut(b"".join(block for block, _ in rest)))]
    out, reader = through(pieces, drop_usage=drop_usage)
    shown = b""
    for block, kind in blocks:
        if kind == "failed":
            break
        shown += block if kind != "usage" or not drop_usage else b""
    assert out == shown + SORRY
    assert reader.failure is Outcome.ENGINE_ABORT


@given(st.data(), COMMENTS, st.integers(1, 4))
def test_comments_do_not_begin_an_answer(data, comment, count):
    stream = (comment + b"\n\n") * count
    reader = EventReader(Watcher(), lambda: 1.0, Histogram((1.0,)), lambda: SORRY)
    assert {reader.read(piece) for piece in data.draw(cut(stream))} == {HOLD}
    assert reader.last_at == 0.0
    first = b"data: {}\n\n"
    assert reader.read(first) == stream + first
    assert reader.end() is PASS


def test_an_event_without_end_is_not_held_for_ever():
    piece = b"x" * 65536
    pieces = [b"data: {}\n\n", b"data: ", *[piece] * (EVENT_MAX_BYTES // len(piece) + 3), b"\n\n", b"data: [DONE]\n\n"]
    out, _ = through(pieces)
    assert out == b"".join(pieces)
    reader = EventReader(Watcher(), lambda: 1.0, Histogram((1.0,)), lambda: SORRY)
    assert any(reader.read(piece) is not HOLD for piece in pieces[1:-2])
