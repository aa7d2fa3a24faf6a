"""What engines say when they give a request up, word for word as vLLM 0.32 says it (fields that do not matter left
out): before its first token it is tried again, after it the client is told."""

import pytest

from llmproxy.core.outcome import Outcome
from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.readers import WholeReader
from llmproxy.telemetry.metrics import Histogram
from llmproxy.wire.relay import HOLD, PASS

SORRY = b'data: {"error":"sorry"}\n\n'
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":33,"total_tokens":33,"completion_tokens":0}}\n\n'
ROLE = (
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    b'"finish_reason":null}],"prompt_token_ids":null}\n\n'
)
WORD = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" a"},"finish_reason":null}]}\n\n'
TEXT = b'data: {"id":"cmpl-1","choices":[{"index":0,"text":"a","finish_reason":null,"stop_reason":null}]}\n\n'
LAST = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}\n\n'
CUT = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" a"},"finish_reason":"abort"}]}\n\n'


def message(kind: bytes, rest: bytes) -> bytes:
    return b'event: %b\ndata: {"type":"%b",%b}\n\n' % (kind, kind, rest)


START = message(
    b"message_start",
    b'"message":{"id":"chatcmpl-1","type":"message","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":33,"output_tokens":0}}',
)
BLOCK = message(b"content_block_start", b'"content_block":{"type":"text","text":""},"index":0')
MESSAGE_WORD = message(b"content_block_delta", b'"delta":{"type":"text_delta","text":" a"},"index":0')
STOP = message(b"message_stop", b'"x":0')


def message_end(reason: bytes, tokens: int) -> bytes:
    return message(
        b"message_delta",
        b'"delta":{"stop_reason":%b,"stop_sequence":null},"usage":{"input_tokens":33,"output_tokens":%d}'
        % (reason, tokens),
    )


def response(kind: bytes, rest: bytes) -> bytes:
    return b'event: response.%b\ndata: {"response":{"id":"resp_1",%b},"type":"response.%b"}\n\n' % (kind, rest, kind)


CREATED = response(b"created", b'"status":"in_progress","usage":null')
IN_PROGRESS = response(b"in_progress", b'"status":"in_progress","usage":null')
RESPONSE_WORD = b'event: response.output_text.delta\ndata: {"delta":" a","type":"response.output_text.delta"}\n\n'


def wrapped(code: int) -> bytes:
    """An error in a stream of `/v1/messages`: vLLM cannot read the chat chunk that it is, and complains of that."""
    missing = (
        b"Field required [type=missing, input_value={'error': {'message': 'Th...am': None, 'code': %d}}, "
        b"input_type=dict]\\n    For further information visit https://errors.pydantic.dev/2.14/v/missing" % code
    )
    return (
        b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"2 validation errors for '
        b'ChatCompletionStreamResponse\\nmodel\\n  %b\\nchoices\\n  %b"}}\n\n' % (missing, missing)
    )


def completed(tokens: int) -> bytes:
    return response(b"completed", b'"status":"completed","usage":{"input_tokens":33,"output_tokens":%d}' % tokens)


@pytest.fixture
def firsts() -> list[float]:
    return []


@pytest.fixture
def events(firsts: list[float]) -> EventReader:
    class Watch:
        def first(self, now: float) -> None:
            firsts.append(now)

    return EventReader(Watch(), lambda: 10.0, Histogram((1.0,)), lambda: SORRY)


UNSAID = {
    "chat": [ROLE, DONE],
    "chat with usage": [ROLE, USAGE, DONE],
    "completions": [DONE],
    "completions with usage": [USAGE, DONE],
    "messages": [START, message_end(b'"end_turn"', 0), STOP],
    "messages at once": [START + message_end(b'"end_turn"', 0) + STOP],
    "responses": [CREATED, IN_PROGRESS, completed(0)],
}


@pytest.mark.parametrize("pieces", UNSAID.values(), ids=UNSAID.keys())
def test_an_answer_given_up_in_the_queue_looks_whole_and_is_not(events: EventReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        assert events.failure is None
        verdict = events.read(piece)
        if events.failure is not None:
            break
        assert verdict is HOLD
    assert events.failure is Outcome.ENGINE_ABORT


WHOLE = {
    "chat": [ROLE + WORD, LAST, DONE],
    "chat of no words": [ROLE, LAST, DONE],
    "chat of one word": [ROLE, WORD, LAST + DONE],
    "chat with usage": [ROLE, WORD, LAST, USAGE, DONE],
    "completions": [TEXT, TEXT, DONE],
    "messages": [START + BLOCK, MESSAGE_WORD, message_end(b'"end_turn"', 1), STOP],
    "messages of no words": [START, message_end(b'"end_turn"', 1), STOP],
    "messages of a tool": [START, BLOCK, MESSAGE_WORD, message_end(b'"tool_use"', 0), STOP],
    "responses": [CREATED, IN_PROGRESS, RESPONSE_WORD, completed(1)],
    "responses of no words": [CREATED, IN_PROGRESS, completed(1)],
    "the client's fault": [b'data: {"error": {"message": "too long", "code": 400}}\n\n', DONE],
    "messages, the client's fault": [wrapped(400)],
    "messages, the client's fault, later": [START + BLOCK, MESSAGE_WORD, wrapped(400)],
}


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_stream_passes_as_it_is(events: EventReader, pieces: list[bytes]) -> None:
    passed = held = b""
    for piece in pieces:
        verdict = events.read(piece)
        held += piece
        if verdict is not HOLD:
            events.committed = True
            passed += held if verdict is PASS else verdict  # type: ignore[operator]
            held = b""
    assert events.end() is PASS
    assert events.failure is None
    assert passed == b"".join(pieces)


LLAMA_ROLE = (
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],'
    b'"id":"chatcmpl-1"}\n\n'
)
LLAMA_LAST = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"id":"chatcmpl-1"}\n\n'
OPENERS = {
    "chat": ([ROLE], WORD),
    "chat of llama.cpp": ([LLAMA_ROLE], WORD),
    "chat of llama.cpp, of no words": ([LLAMA_ROLE], LLAMA_LAST),
    "messages": ([START, BLOCK, message(b"ping", b'"x":0')], MESSAGE_WORD),
    "responses": ([CREATED, IN_PROGRESS], RESPONSE_WORD),
}


@pytest.mark.parametrize(("openers", "word"), OPENERS.values(), ids=OPENERS.keys())
def test_openers_wait_for_the_first_token(
    events: EventReader, firsts: list[float], openers: list[bytes], word: bytes
) -> None:
    for opener in openers:
        assert events.read(opener) is HOLD
        assert firsts == []
    assert events.read(word) == b"".join([*openers, word])
    assert firsts == [10.0]


def test_a_role_that_comes_with_the_end_is_the_answer(events: EventReader, firsts: list[float]) -> None:
    whole = LLAMA_ROLE.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    assert events.read(whole) is PASS
    assert firsts == [10.0]


def test_an_opener_after_the_head_went_out_early_passes_too(events: EventReader) -> None:
    events.committed = True
    assert events.read(ROLE) is PASS


BROKEN_OFF = {
    "chat": [ROLE + WORD, WORD, CUT + DONE],
    "messages": [START + BLOCK + MESSAGE_WORD, message_end(b"null", 2), STOP],
    "messages after silence": [START + message_end(b"null", 0), STOP],
    "messages, the engine's fault": [START + BLOCK + MESSAGE_WORD, wrapped(500)],
}


@pytest.mark.parametrize("pieces", BROKEN_OFF.values(), ids=BROKEN_OFF.keys())
def test_an_answer_given_up_later_is_told(events: EventReader, pieces: list[bytes]) -> None:
    shown = b""
    for piece in pieces:
        verdict = events.read(piece)
        events.committed = True
        shown += piece if verdict is PASS else verdict if isinstance(verdict, bytes) else b""
    assert events.failure is Outcome.ENGINE_ABORT
    assert b"abort" not in shown.replace(SORRY, b"")
    assert DONE not in shown
    assert STOP not in shown or len(pieces) == 2


FULL = {
    "chat": b'data: {"error": {"message": "Please try again later or on a different instance.", "code": 503}}\n\n'
    + DONE,
    "messages": wrapped(503),
}


@pytest.mark.parametrize("committed", [False, True], ids=["held", "released early"])
@pytest.mark.parametrize("full", FULL.values(), ids=FULL.keys())
def test_a_full_engine_is_busy(events: EventReader, full: bytes, committed: bool) -> None:
    events.committed = committed
    shown = events.read(full)
    assert events.failure is Outcome.BUSY
    assert (shown == SORRY) is committed


@pytest.mark.parametrize("error", [wrapped(500), b'data: {"error": {"message": "died", "code": 500}}\n\n' + DONE])
def test_a_dead_engine_is_not_busy(events: EventReader, error: bytes) -> None:
    events.read(error)
    assert events.failure is Outcome.ENGINE_ABORT


WHOLE_BODIES = {
    b'{"object":"chat.completion","choices":[{"message":{"content":"a"},"finish_reason":"abort"}]}': True,
    b'{"object":"chat.completion","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}': False,
    b'{"object":"chat.completion","choices":[{"message":{"content":"\\"finish_reason\\":\\"abort\\""}}]}': False,
    b'{"type":"message","content":[{"type":"text","text":"a"}],"usage":{"output_tokens":2}}': True,
    b'{"type":"message","content":[],"stop_reason":null,"usage":{"output_tokens":2}}': True,
    b'{"type":"message","content":[],"stop_reason":"end_turn","usage":{"output_tokens":2}}': False,
    b'{"type":"error","error":{"type":"x","message":"y"}}': False,
    b'{"object":"response","status":"completed","usage":{"output_tokens":0}}': True,
    b'{"object":"response","status":"completed","usage":{"output_tokens":1}}': False,
    b'{"object":"response","status":"queued","usage":null}': False,
}


@pytest.mark.parametrize(("body", "given_up"), WHOLE_BODIES.items())
def test_whole_answers_given_up(body: bytes, given_up: bool) -> None:
    class Watch:
        def first(self, now: float) -> None: ...

    reader = WholeReader(Watch(), lambda: 10.0, is_error=True)
    assert reader.read(body) is HOLD
    reader.end()
    assert (reader.failure is Outcome.ENGINE_ABORT) is given_up


def test_whole_answers_tell_their_tokens_in_every_dialect() -> None:
    class Watch:
        def first(self, now: float) -> None: ...

    for usage in (
        b'{"prompt_tokens":33,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":32}}',
        b'{"input_tokens":33,"output_tokens":4,"input_tokens_details":{"cached_tokens":32}}',
        b'{"input_tokens":1,"output_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":32}',
    ):
        reader = WholeReader(Watch(), lambda: 10.0, is_error=True)
        reader.read(b'{"usage":%b}' % usage)
        reader.end()
        assert (reader.tokens.prompt, reader.tokens.completion, reader.tokens.cached) == (33, 4, 32)
