"""Readers of answers: they look at the body as it passes, and say what the client may see of it."""

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from llmproxy.core.outcome import Outcome
from llmproxy.core.prompt import TokenCounts
from llmproxy.pipeline.events import is_cut_short, says_full
from llmproxy.pipeline.reported import Usage, Whole, decode_whole
from llmproxy.wire.relay import HOLD, PASS, Reader, Verdict

HELD_MAX_BYTES: Final = 1 << 20
"""Non-stream answers up to this size are held whole, so that a backend dying in the middle costs the client nothing."""
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
