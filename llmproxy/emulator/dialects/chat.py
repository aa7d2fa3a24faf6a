"""`/v1/chat/completions`."""

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import DONE, Answer, Event, event


class ChatAnswer(Answer):
    """The role comes first, for every choice; the reason rides on the last token; usage has a chunk of its own."""

    def opening(self) -> list[bytes]:
        chunks = []
        for choice in self.job.choices:
            delta = {"role": "assistant", "content": ""}
            chunk = self._chunk([{"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}])
            if self.job.token_ids:
                chunk["prompt_token_ids"] = choice.prompt_ids
            chunks.append(event(chunk))
        return chunks

    def delta(self, choice: Choice, word: str, reason: str | None) -> list[bytes]:
        part: Event = {
            "index": choice.index,
            "delta": {"content": word},
            "logprobs": None,
            "finish_reason": reason,
        }
        if reason is not None:
            part["stop_reason"] = choice.script.stop if reason == "stop" else None
        if self.job.token_ids:
            part["token_ids"] = choice.ids[-1:] if word else []
        return [event(self._chunk([part]))]

    def closing(self) -> list[bytes]:
        if not self.job.include_usage:
            return [DONE]
        chunk = self._chunk([])
        chunk["usage"] = self.usage()
        return [event(chunk), DONE]

    def whole(self) -> Event:
        return {
            "id": self.job.id,
            "object": "chat.completion",
            "created": self.job.created,
            "model": self.job.model,
            "choices": [self._message(choice) for choice in self.job.choices],
            "service_tier": None,
            "system_fingerprint": None,
            "usage": self.usage(),
            "prompt_logprobs": None,
            "prompt_token_ids": self.job.choices[0].prompt_ids if self.job.token_ids else None,
            "kv_transfer_params": None,
        }

    def _message(self, choice: Choice) -> Event:
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None, "tool_calls": []},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.script.stop if choice.finish_reason == "stop" else None,
            "token_ids": choice.ids if self.job.token_ids else None,
        }

    def _chunk(self, parts: list[Event]) -> Event:
        job = self.job
        chunk: Event = {
            "id": job.id,
            "object": "chat.completion.chunk",
            "created": job.created,
            "model": job.model,
            "choices": parts,
        }
        if job.continuous_usage:
            chunk["usage"] = self.usage()
        return chunk
