"""`/v1/messages`: Anthropic's shape and events."""

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import Answer, Event, named_event

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesAnswer(Answer):
    """One text block. An abort has no stop reason in this dialect."""

    def opening(self) -> list[bytes]:
        message = self._message([], None, 0)
        block = {"type": "text", "text": ""}
        return [
            named_event({"type": "message_start", "message": message}),
            named_event({"type": "content_block_start", "index": 0, "content_block": block}),
        ]

    def delta(self, choice: Choice, word: str, reason: str | None) -> list[bytes]:
        if not word:
            return []
        delta = {"type": "text_delta", "text": word}
        return [named_event({"type": "content_block_delta", "index": 0, "delta": delta})]

    def closing(self) -> list[bytes]:
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        return [
            named_event({"type": "content_block_stop", "index": 0}),
            named_event({"type": "message_delta", "delta": delta, "usage": self._usage()}),
            named_event({"type": "message_stop"}),
        ]

    def failure(self, message: str) -> list[bytes]:
        return [named_event({"type": "error", "error": {"type": "internal_error", "message": message}})]

    def whole(self) -> Event:
        choice = self.job.choices[0]
        return self._message([{"type": "text", "text": choice.text}], self._stop_reason(), choice.generated)

    def _stop_reason(self) -> str | None:
        return _STOP_REASONS.get(self.job.choices[0].finish_reason or "")

    def _message(self, content: list[Event], stop_reason: str | None, output_tokens: int) -> Event:
        return {
            "id": self.job.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.job.model,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": self._usage() | {"output_tokens": output_tokens},
        }

    def _usage(self) -> Event:
        choice = self.job.choices[0]
        usage: Event = {"input_tokens": choice.prompt_tokens, "output_tokens": choice.generated}
        if choice.cached_tokens:
            usage["cache_read_input_tokens"] = choice.cached_tokens
        return usage
