"""Readers of answers: what they hold, what they count, and what they take for the engine's failure."""

import json

import pytest

from llmproxy.core.outcome import Outcome
from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.readers import HELD_MAX_BYTES, PlainReader, WholeReader
from llmproxy.telemetry.metrics import Histogram
from llmproxy.wire.relay import DROP, HOLD, PASS

SORRY = b'data: {"error":"sorry"}\n\n'


class Watch:
    """The clock, and who is told of the first piece."""

    def __init__(self):
        self.now = 10.0
        self.firsts = []
        self.gaps = Histogram((0.0, 1.0))

    def first(self, now):
        self.firsts.append(now)

    def __call__(self):
        return self.now


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def events(watch):
    return EventReader(watch, watch, watch.gaps, lambda: SORRY)


@pytest.fixture
def whole(watch):
    return WholeReader(watch, watch)


def event(value, name=None):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + data + b"\n\n"


def chunk(text="x", **more):
    return event({"choices": [{"delta": {"content": text}}], **more})


# -- whole answers ------------------------------------------------------------------------------------------------


def test_plain_passes_at_once(watch):
    reader = PlainReader(watch, watch)
    assert reader.read(b"\0\1") is PASS
    watch.now = 11.0
    assert reader.read(b"\2") is PASS
    assert reader.end() is PASS
    assert watch.firsts == [10.0]
    assert reader.last_at == 11.0


def test_whole_is_held(whole, watch):
    assert whole.read(b'{"usage": {"prompt_tokens": 3, ') is HOLD
    assert whole.read(b'"completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}}') is HOLD
    assert whole.end() is PASS
    assert (whole.tokens.prompt, whole.tokens.completion, whole.tokens.cached) == (3, 4, 2)
    assert whole.failure is None
    assert watch.firsts == [10.0]


def test_a_large_one_is_held_no_longer(whole):
    assert whole.read(b"x" * HELD_MAX_BYTES) is HOLD
    assert whole.read(b"x") is PASS
    assert whole.read(b"x") is PASS
    assert whole.end() is PASS


def test_an_empty_one(whole):
    assert whole.end() is PASS
    assert whole.failure is None


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"\xff", b"[" * 100_000, b'{"usage": 5}', b'{"usage": {"prompt_tokens": "x"}}']
)
def test_what_cannot_be_read_passes(whole, body):
    if body:
        whole.read(body)
    assert whole.end() is PASS
    assert (whole.tokens.prompt, whole.failure) == (None, None)


def test_input_and_output_tokens(whole):
    whole.read(b'{"type": "message", "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 6}}')
    whole.end()
    assert (whole.tokens.prompt, whole.tokens.completion, whole.failure) == (5, 6, None)


@pytest.mark.parametrize(
    ("body", "failed"),
    [
        (b'{"choices": [{"finish_reason": "abort"}]}', True),
        (b'{"choices":[{"text":"a"},{"finish_reason":"abort"}]}', True),
        (b'{"choices": [{"finish_reason": "stop", "text": "abort"}]}', False),
        (rb'{"choices": [{"finish_reason": "stop", "text": "\"finish_reason\": \"abort\""}]}', False),
    ],
)
def test_aborted_although_200(whole, body, failed):
    whole.read(body)
    whole.end()
    assert whole.failure is (Outcome.ENGINE_ABORT if failed else None)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_id_of_a_response(whole, size):
    whole.wants_response_id = True
    body = b'{"object": "response", "id": "resp_ab-12", "output": [{"id": "msg_1"}]}'
    for start in range(0, len(body), size):
        whole.read(body[start : start + size])
    whole.end()
    assert whole.response_id == b"resp_ab-12"


# -- event-streams ------------------------------------------------------------------------------------------------


def test_events_pass_as_they_are(events, watch):
    for number in range(4):
        watch.now = 10.0 + number
        assert events.read(chunk() * 2) is PASS
    assert events.read(event(b"[DONE]")) is PASS
    assert events.end() is PASS
    assert watch.firsts == [10.0]
    assert watch.gaps.counts == [1, 3, 0]
    assert events.tokens.events == 9


def test_an_unfinished_event_is_kept_back(events):
    first, second = chunk("a"), chunk("b")
    assert events.read(first + second[:9]) == first
    assert events.read(second[9:12]) is HOLD
    assert events.read(second[12:]) == second
    assert events.read(second[:9]) is HOLD
    assert events.end() == second[:9]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_event_passes_as_soon_as_it_is_whole(events, line_end):
    """Wherever its end is cut."""
    whole = chunk("a").replace(b"\n", line_end)
    for cut in range(1, len(line_end) * 2 + 1):
        assert events.read(whole[:-cut]) is HOLD
        assert events.read(whole[-cut:]) == whole


def test_comments_before_the_first_event_wait_for_it(events, watch):
    assert events.read(b": ping\n\n") is HOLD
    assert events.read(b": pong\n\n: pi") is HOLD
    assert watch.firsts == []
    assert events.read(b"ng\n\n") is HOLD
    assert events.read(chunk()) == b": ping\n\n: pong\n\n: ping\n\n" + chunk()
    assert watch.firsts == [10.0]


def test_comments_are_no_progress(events, watch):
    events.read(chunk())
    events.committed = True
    watch.now = 20.0
    assert events.read(b": ping\n\n") is PASS
    assert events.last_at == 10.0
    assert watch.gaps.counts == [0, 0, 0]
    assert events.read(b": ping\n\n" + chunk()) is PASS
    assert events.last_at == 20.0


def test_only_comments(events):
    events.read(b": ping\n\n: p")
    assert events.end() == b": ping\n\n: p"


def test_usage_is_counted(events):
    events.read(chunk(usage={"prompt_tokens": 5, "completion_tokens": 1}))
    events.read(chunk(usage={"prompt_tokens": 5, "completion_tokens": 2}))
    assert (events.tokens.prompt, events.tokens.completion) == (5, 2)
    assert events.read(event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})) is PASS
    assert events.tokens.completion == 3


@pytest.mark.parametrize("dialect", ["response", "message"])
def test_usage_inside(events, dialect):
    events.read(event({"type": "x", dialect: {"id": "y", "usage": {"input_tokens": 5, "output_tokens": 3}}}, b"x"))
    assert (events.tokens.prompt, events.tokens.completion) == (5, 3)


def test_the_extra_usage_chunk_is_dropped(events):
    events.drop_usage = True
    extra = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
    continuous = chunk(usage={"prompt_tokens": 5, "completion_tokens": 1})
    assert events.read(continuous) is PASS
    events.committed = True
    assert events.read(extra) is DROP
    assert events.read(chunk() + extra + event(b"[DONE]")) == chunk() + event(b"[DONE]")
    assert events.read(extra + chunk()[:5]) is HOLD
    assert events.read(chunk()[5:]) == chunk()
    assert events.tokens.completion == 3


@pytest.mark.parametrize(
    "value", [b"{", b"[]", b"5", b"\xff", b'{"usage": 1}', b'{"usage": {}, "choices": 1}', b"[" * 999]
)
def test_events_that_cannot_be_read_pass(events, value):
    events.drop_usage = True
    broken = event(value + b' "usage"')
    events.read(chunk())
    assert events.read(broken) is PASS


FAILURES = {
    "abort": event({"choices": [{"finish_reason": "abort"}]}),
    "error": event({"error": {"message": "dead", "code": 500}}),
    "error, named": event({"x": 1}, b"error"),
    "error of type": event({"type": "error", "error": {}}),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_before_anything_went_out(events, name):
    events.read(FAILURES[name])
    assert events.failure is Outcome.ENGINE_ABORT


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_later_is_replaced_and_ends_the_stream(events, name):
    events.read(chunk())
    events.committed = True
    assert events.read(chunk() + FAILURES[name] + chunk()) == chunk() + SORRY
    assert events.failure is Outcome.ENGINE_ABORT
    assert events.read(chunk()) is DROP
    assert events.read(b"data") is DROP
    assert events.end() in (PASS, DROP)


@pytest.mark.parametrize(
    "fine",
    [
        event({"error": {"message": "too long", "code": 400}}),
        event({"error": {"message": "too long", "code": "404"}}),
        chunk('"finish_reason": "abort"'),
        chunk('data: {"error": 1}'),
        event({"choices": [{"finish_reason": "stop", "note": "abort error"}]}),
        event({"type": "response.completed", "error": None}),
        chunk("\n\nevent: error\n"),
    ],
)
def test_what_is_no_failure(events, fine):
    events.read(chunk())
    events.committed = True
    assert events.read(fine) is PASS
    assert events.failure is None


def test_the_id_of_a_streamed_response(events):
    events.wants_response_id = True
    created = event({"type": "response.created", "response": {"id": "resp_1", "usage": None}}, b"response.created")
    assert events.read(created[:20]) is HOLD
    events.read(created[20:])
    assert events.response_id == b"resp_1"


@pytest.mark.parametrize("committed", [True, False])
def test_a_stream_that_the_connection_ends_must_say_done(watch, committed):
    def reader():
        made = EventReader(watch, watch, watch.gaps, lambda: SORRY)
        made.expects_done = True
        if committed:
            made.read(chunk())
            made.committed = True
        return made

    cut = reader()
    cut.read(chunk())
    assert cut.end() == (SORRY if committed else DROP)
    assert cut.failure is (Outcome.CUT if committed else Outcome.RESET)
    last = chunk() + event(b"[DONE]")
    for cut_at in (0, len(last) - 12, len(last) - 5, len(last) - 1):
        done = reader()
        for piece in (last[:cut_at], last[cut_at:]):
            done.read(piece)
        assert done.end() is PASS, cut_at
        assert done.failure is None
