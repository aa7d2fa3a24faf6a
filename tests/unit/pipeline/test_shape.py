"""Which chunks are told from their frame alone, and that nothing hides in them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.shape import Shape
from llmproxy.telemetry.metrics import Histogram

CHAT = b'data: {"id":"c","choices":[{"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
COMPLETION = b'data: {"id":"c", "choices": [{"text": "%b", "finish_reason": null}]}\n\n'
RESPONSE = b'event: response.output_text.delta\ndata: {"delta":"%b","item_id":"m"}\n\n'


@pytest.mark.parametrize("frame", [CHAT, COMPLETION, RESPONSE])
def test_others_of_the_same_frame_fit(frame):
    shape = Shape()
    assert not shape.fits(frame % b" one")
    shape.learn(frame % b" one")
    assert shape.fits(frame % b" another")
    assert shape.fits(frame % b"")
    assert shape.fits(frame % "żółw".encode())


@pytest.mark.parametrize(
    "other",
    [
        b'data: {"id":"c","choices":[{"delta":{"content":"x"},"finish_reason":"abort"}]}\n\n',
        b'data: {"id":"c","choices":[{"delta":{"content":"x","y":""},"finish_reason":null}]}\n\n',
        b'data: {"id":"d","choices":[{"delta":{"content":"x"},"finish_reason":null}]}\n\n',
        CHAT % b"a" + CHAT % b"b",
        CHAT % b'say \\"x\\"',
        (CHAT % b"x")[:-1],
        (CHAT % b"x")[:40],
        b"data: [DONE]\n\n",
    ],
)
def test_what_has_another_frame_does_not_fit(other):
    shape = Shape()
    shape.learn(CHAT % b" one")
    assert not shape.fits(other)


def test_frames_do_not_overlap():
    """The end of what comes before the text is no beginning of what comes behind it."""
    shape = Shape()
    shape.learn(b'data: {"text":""""""}\n\n')
    assert not shape.fits(b'data: {"text":"""}\n\n')


def test_a_text_with_a_backslash_teaches_nothing():
    shape = Shape()
    shape.learn(CHAT % b'a\\"usage\\": ')
    assert not shape.fits(CHAT % b'a\\"usage\\": ')


def test_streams_that_are_never_alike_are_given_up():
    shape = Shape()
    for number in range(100):
        shape.learn(b'data: {"n":%d,"text":"a"}\n\n' % number)
    shape.learn(CHAT % b"a")
    assert not shape.fits(CHAT % b"b")


class Watcher:
    def first(self, now):
        pass


PIECES = ['"', "\\", "\n", "a", "usage", "abort", "error", ":", "}", " "]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@given(st.lists(st.tuples(TEXTS, st.sampled_from([None, "stop", "abort"])), min_size=1, max_size=8))
def test_readers_see_the_same_with_it_and_without(chunks):
    def seen(shape):
        reader = EventReader(Watcher(), lambda: 1.0, Histogram((1.0,)), lambda: b"SORRY")
        if not shape:
            reader._shape._tries = 1000
        found = []
        for text, reason in chunks:
            value = {"choices": [{"delta": {"content": text}, "finish_reason": reason}]}
            found.append(reader.read(b"data: " + json.dumps(value).encode() + b"\n\n"))
            reader.committed = True
        return found, reader.failure, reader.tokens.events, reader.end()

    assert seen(True) == seen(False)
