"""`/v1/completions`."""

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.dialects.answer import DONE, Answer, Event, event


class CompletionsAnswer(Answer):
    """Plain text; every chunk has the shape of a whole choice."""

    def opening(self) -> list[bytes]:
        return []

    def delta(self, choice: Choice, word: str, reason: str | None) -> list[bytes]:
        part: Event = {
            "index": choice.index,
            "text": word,
            "logprobs": None,
            "finish_reason": reason,
            "stop_reason": choice.script.stop if reason == "stop" else None,
        }
        if self.job.token_ids:
            part["token_ids"] = choice.ids[-1:] if word else []
            if choice.generated <= 1:
                part["prompt_token_ids"] = choice.prompt_ids
        return [event(self._chunk([part]))]

    def closing(self) -> list[bytes]:
        if not self.job.include_usage:
            return [DONE]
        chunk = self._chunk([])
        chunk["usage"] = self.usage()
        return [event(chunk), DONE]

    def whole(self) -> Event:
        answer = self._chunk([self._text(choice) for choice in self.job.choices])
        answer |= {"service_tier": None, "system_fingerprint": None, "usage": self.usage(), "kv_transfer_params": None}
        return answer

    def _text(self, choice: Choice) -> Event:
        return {
            "index": choice.index,
            "text": choice.text,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.script.stop if choice.finish_reason == "stop" else None,
            "token_ids": choice.ids if self.job.token_ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": choice.prompt_ids if self.job.token_ids else None,
        }

    def _chunk(self, parts: list[Event]) -> Event:
        job = self.job
        chunk: Event = {
            "id": job.id,
            "object": "text_completion",
            "created": job.created,
            "model": job.model,
            "choices": parts,
        }
        if job.continuous_usage:
            chunk["usage"] = self.usage()
        return chunk
