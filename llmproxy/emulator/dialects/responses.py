"""`/v1/responses`: numbered events around one message."""

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import Answer, Event, Job, named_event

_STATUSES = {"stop": "completed", "length": "incomplete", "abort": "cancelled"}


class ResponsesAnswer(Answer):
    """The status is that of the only choice: in progress until it has its reason."""

    def __init__(self, job: Job, *, background: bool = False, store: bool = True) -> None:
        super().__init__(job)
        self._background = background
        self._store = store
        self._number = 0
        self._item_id = f"msg_{job.id.removeprefix('resp_')}"

    def opening(self) -> list[bytes]:
        item = self._item([], "in_progress")
        return [
            self._event("response.created", response=self.whole()),
            self._event("response.in_progress", response=self.whole()),
            self._event("response.output_item.added", output_index=0, item=item),
            self._place("response.content_part.added", part=self._part("")),
        ]

    def delta(self, choice: Choice, word: str, reason: str | None) -> list[bytes]:
        return [self._place("response.output_text.delta", delta=word, logprobs=[])] if word else []

    def closing(self) -> list[bytes]:
        part = self._part(self.job.choices[0].text)
        return [
            self._place("response.output_text.done", text=part["text"], logprobs=[]),
            self._place("response.content_part.done", part=part),
            self._event("response.output_item.done", output_index=0, item=self._item([part], "completed")),
            self._event("response.completed", response=self.whole()),
        ]

    def failure(self, message: str) -> list[bytes]:
        return [self._event("error", code="server_error", message=message, param=None)]

    def whole(self) -> Event:
        choice = self.job.choices[0]
        status = _STATUSES.get(choice.finish_reason or "", "in_progress")
        ended = status != "in_progress"
        return {
            "id": self.job.id,
            "object": "response",
            "created_at": self.job.created,
            "model": self.job.model,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [self._item([self._part(choice.text)], "completed")] if ended else [],
            "usage": self._usage() if ended else None,
            "error": None,
            "instructions": None,
            "metadata": None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "temperature": 1.0,
            "top_p": 1.0,
            "background": self._background,
            "store": self._store,
        }

    def _usage(self) -> Event:
        choice = self.job.choices[0]
        return {
            "input_tokens": choice.prompt_tokens,
            "input_tokens_details": {"cached_tokens": choice.cached_tokens},
            "output_tokens": choice.generated,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": choice.tokens,
        }

    def _item(self, content: list[Event], status: str) -> Event:
        return {"id": self._item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def _part(self, text: str) -> Event:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}

    def _place(self, type_: str, **fields: object) -> bytes:
        return self._event(type_, item_id=self._item_id, output_index=0, content_index=0, **fields)

    def _event(self, type_: str, **fields: object) -> bytes:
        number, self._number = self._number, self._number + 1
        return named_event({"type": type_, "sequence_number": number, **fields})
