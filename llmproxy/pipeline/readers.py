"""Readers of answers: they look at the body as it passes, and say what the client may see of it."""

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from llmproxy.core.outcome import Outcome
from llmproxy.core.prompt import TokenCounts
from llmproxy.pipeline.events import ends_unsaid, gives_up, is_cut_short, is_opener, says_full, split_events
from llmproxy.pipeline.reported import Usage, Whole, decode_event, decode_whole
from llmproxy.pipeline.shape import Shape
from llmproxy.telemetry.metrics import Histogram
from llmproxy.wire.relay import DROP, HOLD, PASS, Reader, Verdict

HELD_MAX_BYTES: Final = 1 << 20
"""Non-stream answers up to this size are held whole, so that a backend dying in the middle costs the client nothing."""
EVENT_MAX_BYTES: Final = 1 << 20

_LF: Final = 10
_COLON: Final = 58
_RESPONSE_ID: Final = re.compile(rb'"id"\s*:\s*"(resp_[^"\\]{1,200})"')


class Watcher(Protocol):
    """Who is told that the first piece that counts has come."""

    def first(self, now: float) -> None: ...


class Tokens:
    """What an answer said of its token counts."""

    __slots__ = ("cached", "completion", "events", "prompt")

    def __init__(self) -> None:
        self.prompt: int | None = None
        self.completion: int | None = None
        self.cached: int | None = None
        self.events = 0

    def take(self, usage: Usage) -> None:
        """Keep the latest counts; later ones are larger."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        cached: Any = None
        if prompt is None:
            prompt, details = usage.input_tokens, usage.input_tokens_details
            cached = usage.cache_read_input_tokens
            if cached is not None and prompt is not None:
                # Anthropic's input_tokens are those that no cache had.
                prompt += cached + (usage.cache_creation_input_tokens or 0)
        else:
            details = usage.prompt_tokens_details
        if completion is None:
            completion = usage.output_tokens
        if isinstance(details, dict):
            cached = details.get("cached_tokens")
        if prompt is not None:
            self.prompt = prompt
        if completion is not None:
            self.completion = completion
        if isinstance(cached, int):
            self.cached = cached

    def counted(self, whole: bool) -> int:
        """The completion's tokens by the number of events, where no engine tells: the first one carries the role, and
        the last one of a whole stream is `[DONE]`."""
        return max(self.events - (2 if whole else 1), 1)

    def counts(self) -> TokenCounts:
        """As policies learn them."""
        return TokenCounts(self.prompt, self.cached, self.completion)


class AnswerReader(Reader):
    """What all readers share. `failure` is set when the engine's answer is itself a failure; `says_full` when its body
    has the words of a full engine, which mean that in an answer with status 503."""

    __slots__ = (
        "_clock",
        "_watcher",
        "committed",
        "failure",
        "last_at",
        "response_id",
        "says_full",
        "tokens",
        "wants_response_id",
    )

    def __init__(self, watcher: Watcher, clock: Callable[[], float]) -> None:
        self._watcher = watcher
        self._clock = clock
        self.failure: Outcome | None = None
        self.says_full = False
        self.committed = False
        self.last_at = 0.0
        self.tokens = Tokens()
        self.wants_response_id = False
        self.response_id: bytes | None = None

    def _look_for_id(self, body: bytes) -> None:
        match = _RESPONSE_ID.search(body)
        if match is not None:
            self.wants_response_id = False
            self.response_id = match[1]

    def _tick(self) -> None:
        """A piece that counts as progress has come."""
        last_at, self.last_at = self.last_at, self._clock()
        if not last_at:
            self._watcher.first(self.last_at)


class PlainReader(AnswerReader):
    """Any body that has no structure we read: audio, files. Passes from its first byte."""

    __slots__ = ()

    def read(self, body: bytes) -> Verdict | bytes:
        self._tick()
        return PASS


class WholeReader(AnswerReader):
    """A non-stream JSON answer: held whole up to `HELD_MAX_BYTES`, then passed."""

    __slots__ = ("_parts", "_size", "is_error")

    def __init__(self, watcher: Watcher, clock: Callable[[], float], *, is_error: bool = False) -> None:
        super().__init__(watcher, clock)
        self.is_error = is_error
        """The answer's status is one of an error."""
        self._parts: list[bytes] | None = []
        self._size = 0

    def read(self, body: bytes) -> Verdict | bytes:
        self._tick()
        parts = self._parts
        if parts is None:
            return PASS
        self._size += len(body)
        if self._size > HELD_MAX_BYTES:
            self._parts = None
            return PASS
        parts.append(body)
        if self.wants_response_id:
            self._look_for_id(body)
        return HOLD

    def end(self) -> Verdict | bytes:
        if self._parts is None:
            return PASS
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = None
        self.says_full = self.is_error and says_full(body)
        if is_cut_short(body):
            self.failure = Outcome.ENGINE_ABORT
        if self.wants_response_id:
            self._look_for_id(body)
        try:
            whole = decode_whole(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return PASS
        if whole.usage is not None:
            self.tokens.take(whole.usage)
        if given_up(whole):
            self.failure = Outcome.ENGINE_ABORT
        return PASS


def given_up(whole: Whole) -> bool:
    """A message that stopped for no reason, or a completed response of no tokens (see `events`)."""
    if whole.type == "message":
        return whole.stop_reason is None
    unsaid = whole.object == "response" and whole.usage is not None and whole.usage.output_tokens == 0
    return unsaid and whole.status == "completed"


class EventReader(AnswerReader):
    """An event-stream (WHATWG HTML, 9.2). What comes before the first token is held, so that an engine which fails
    until then costs the client nothing. After it, pieces pass as they come as long as they end between two events and
    hold nothing to act on; otherwise their events are looked at one by one, and an unfinished one is kept back."""

    __slots__ = (
        "_ended",
        "_error_event",
        "_gaps",
        "_kept",
        "_last",
        "_said",
        "_shape",
        "_tail",
        "drop_usage",
        "expects_done",
    )

    def __init__(
        self,
        watcher: Watcher,
        clock: Callable[[], float],
        gaps: Histogram,
        error_event: Callable[[], bytes],
    ) -> None:
        super().__init__(watcher, clock)
        self._gaps = gaps
        self._shape = Shape()
        self._error_event = error_event
        self.drop_usage = False
        self.expects_done = False
        """The connection's end is the body's end, so only `[DONE]` tells a whole stream from one cut off."""
        self._last = b""
        self._kept = b""
        """Comments and openers from before the first token."""
        self._said = False
        """There was more than comments and openers."""
        self._tail = b""
        """The beginning of an event."""
        self._ended = False
        """The stream was ended in the engine's place: nothing of it is shown any more."""

    def read(self, body: bytes) -> Verdict | bytes:
        last_at = self.last_at
        if not last_at or self._tail or self._ended or not (self._shape.fits(body) or self._is_harmless(body)):
            return self._read_events(body)
        now = self.last_at = self._clock()
        self._gaps.observe(now - last_at)
        self.tokens.events += 1
        if self.expects_done:
            self._last = body
        return PASS

    def end(self) -> Verdict | bytes:
        if self._ended:
            # Dropping would take along the error event that stands in for the piece this came with.
            return PASS
        if self.expects_done and b"[DONE]" not in self._last:
            self.failure = Outcome.CUT if self.committed else Outcome.RESET
            return self._error_event() if self.committed else DROP
        rest, self._kept, self._tail = self._kept + self._tail, b"", b""
        return rest or PASS

    def _is_harmless(self, body: bytes) -> bool:
        """Whether `body` is whole events with nothing to act on. Counts all of them but one."""
        if (
            len(body) > 1
            # Compiled, comparing single bytes calls nothing.
            and body[-1] == _LF
            and body[-2] == _LF
            and body[0] != _COLON
            # Of all ways to look for a word, the one that parses no arguments; `in` takes twice the time.
            and not body.partition(b'"usage"')[1]
            and not body.partition(b"abort")[1]
            and not body.partition(b"error")[1]
        ):
            more = body.count(b"\n\n") - 1
            if more:
                self.tokens.events += more
            else:
                self._shape.learn(body)
            return True
        return False

    def _read_events(self, body: bytes) -> Verdict | bytes:
        if self._ended:
            return DROP
        data = self._tail + body
        if self.expects_done:
            # Not otherwise: thousands of streams may be open.
            self._last = data
        # No event ends inside the tail, so a long one is not searched again and again.
        searched = max(len(self._tail) - 3, 0)
        bare, crlf = data.rfind(b"\n\n", searched), data.rfind(b"\r\n\r\n", searched)
        cut = max(bare + 2 if bare >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
        if len(data) - cut > EVENT_MAX_BYTES:
            cut = len(data)
        self._tail = data[cut:]
        out: list[bytes] = []
        progressed = False
        for event in split_events(data[:cut]):
            if event.startswith(b":") and b"\ndata:" not in event:
                out.append(event)
                continue
            shown = self._look(event)
            progressed = self._said or self.failure is not None
            if shown:
                out.append(shown)
            if self.failure is not None and self.committed:
                break
        if progressed:
            if self.last_at:
                self._gaps.observe(self._clock() - self.last_at)
            self._tick()
        elif not self.committed:
            # Comments and openers say that the engine lives, not that it answers.
            self._kept += b"".join(out)
            return HOLD
        shown_bytes = self._kept + b"".join(out)
        self._kept = b""
        if not shown_bytes and not (self.failure and not self.committed):
            return HOLD if self._tail else DROP
        return PASS if shown_bytes == body else shown_bytes

    def _look(self, event: bytes) -> bytes:
        """What the client sees of a whole event."""
        tokens = self.tokens
        tokens.events += 1
        if self.wants_response_id:
            self._look_for_id(event)
        extra = b'"usage"' in event and self._take_usage(event)
        failed = gives_up(event)
        if not self._said and not extra and not is_opener(event):
            failed = failed or ends_unsaid(event)
            self._said = True
        if extra and self.drop_usage:
            return b""
        if not failed:
            return event
        self.failure = Outcome.BUSY if says_full(event) else Outcome.ENGINE_ABORT
        if not self.committed:
            return event
        self._ended = True
        return self._error_event()

    def _take_usage(self, event: bytes) -> bool:
        """Count the tokens an event reports. True for the extra chunk at the end, which has no choices."""
        start = event.find(b"data:")
        try:
            chunk = decode_event(event[start + 5 :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        for usage in (
            chunk.usage,
            chunk.response.usage if chunk.response else None,
            chunk.message.usage if chunk.message else None,
        ):
            if usage is not None:
                self.tokens.take(usage)
        return chunk.usage is not None and chunk.choices == []
