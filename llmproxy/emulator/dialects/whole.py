"""Answers that are never streamed: embeddings, scores, token ids, transcripts."""

from collections.abc import Callable

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import Answer, Event, Job


class WholeAnswer(Answer):
    """`render` makes the body once the engine is done."""

    def __init__(self, job: Job, render: Callable[["WholeAnswer"], Event]) -> None:
        super().__init__(job)
        self._render = render

    def opening(self) -> list[bytes]:
        return []

    def delta(self, choice: Choice, word: str, reason: str | None) -> list[bytes]:
        return []

    def closing(self) -> list[bytes]:
        return []

    def whole(self) -> Event:
        return self._render(self)
