"""What every dialect offers, and what they share: server-sent events and usage."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmproxy.emulator.choice import Choice

Event = dict[str, Any]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Job:
    """What is answered: the request's id and model, and the extras it asked for."""

    id: str
    model: str
    created: int
    choices: Sequence[Choice]
    include_usage: bool = False
    continuous_usage: bool = False
    token_ids: bool = False


class Answer(ABC):
    """One request's answer. Streaming: `opening`, then `delta` for each token, then `closing`, or `failure` instead."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @abstractmethod
    def opening(self) -> list[bytes]:
        """What precedes the first token, sent together with it."""

    @abstractmethod
    def delta(self, choice: Choice, word: str, reason: str | None) -> list[bytes]:
        """A token, or no word and the reason why the choice ends."""

    @abstractmethod
    def closing(self) -> list[bytes]:
        """What follows when every choice has its reason."""

    def failure(self, message: str) -> list[bytes]:
        """The engine died in the middle."""
        error = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
        return [event({"error": error}), DONE]

    @abstractmethod
    def whole(self) -> Event:
        """The answer that is not streamed."""

    def usage(self) -> Event:
        prompts = {id(choice.prompt_ids): choice for choice in self.job.choices}
        prompt_tokens = sum(choice.prompt_tokens for choice in prompts.values())
        completion_tokens = sum(choice.generated for choice in self.job.choices)
        cached = sum(choice.cached_tokens for choice in prompts.values())
        return {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached} if cached else None,
        }


def event(value: Event) -> bytes:
    """An unnamed event."""
    return b"data: %b\n\n" % msgspec.json.encode(value)


def named_event(value: Event) -> bytes:
    """An event whose name is its `type`."""
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), msgspec.json.encode(value))
