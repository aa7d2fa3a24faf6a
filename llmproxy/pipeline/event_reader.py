"""The reader of event streams: tells tokens from the rest, counts them, and holds back what an engine ends in."""

from collections.abc import Callable
from typing import Final

import msgspec

from llmproxy.core.outcome import Outcome
from llmproxy.pipeline.events import ends_unsaid, gives_up, is_opener, says_full, split_events
from llmproxy.pipeline.readers import AnswerReader, Watcher
from llmproxy.pipeline.reported import decode_event
from llmproxy.pipeline.shape import Shape
from llmproxy.telemetry.metrics import Histogram
from llmproxy.wire.relay import DROP, HOLD, PASS, Verdict

EVENT_MAX_BYTES: Final = 1 << 20
_LF: Final = 10
_COLON: Final = 58


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
