"""Reading request bodies: fields of the expected type or a 400, prompts as token ids, and the choices they ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from llmproxy.emulator.choice import Choice
from llmproxy.emulator.errors import ApiError
from llmproxy.emulator.incoming import Incoming
from llmproxy.emulator.tokens import ID_MAX, Script, encode

T = TypeVar("T")
Body = dict[str, Any]

N_MAX = 64
_END = encode("<|end|>")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server's options say about generations."""

    max_model_len: int
    output_tokens: int
    block_size: int


def read_json(request: Incoming) -> Body:
    """The JSON object in a body. Raises ApiError."""
    if not (request.header("content-type") or "application/json").lower().startswith("application/json"):
        raise ApiError(400, "Unsupported Media Type: Only 'application/json' is allowed", type="Bad Request")
    try:
        body = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"JSON decode error: {error}", type="Bad Request") from None
    if not isinstance(body, dict):
        raise ApiError(400, "Input should be a valid dictionary", type="Bad Request")
    return body


def field(body: Body, name: str, kind: type[T], default: T) -> T:
    """A field, or `default` when it is absent or null. Raises ApiError when it has another type."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ApiError(400, f"{name}: Input should be a valid {kind.__name__}", type="Bad Request", param=name)
    return value


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part.get("text", "")) if isinstance(part, dict) else text_of(part) for part in content)
    return ""


def chat_ids(messages: Sequence[Any], *, continue_final: bool = False) -> list[int]:
    """A conversation as token ids, through a template that keeps each message's tokens apart from its neighbours'."""
    if not messages:
        raise ApiError(400, "messages: at least one message is needed", type="Bad Request", param="messages")
    ids: list[int] = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(400, "messages: each one needs a role", type="Bad Request", param="messages")
        ids += encode(f"<|{message['role']}|>")
        ids += encode(text_of(message.get("content")))
        ids += _END
    if continue_final:
        return ids[: -len(_END)]
    return ids + encode("<|assistant|>")


def prompt_ids(prompt: Any) -> list[list[int]]:
    """The prompts of a completion: a string, token ids, or a list of either."""
    if isinstance(prompt, str):
        return [encode(prompt)]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(item, int) and 0 <= item <= ID_MAX for item in prompt):
            return [prompt]
        return [ids for item in prompt for ids in prompt_ids(item)]
    raise ApiError(400, "prompt: a string, token ids, or a list of them is needed", type="Bad Request", param="prompt")


def choices(
    prompts: Sequence[list[int]], body: Body, limits: Limits, max_tokens: int | None, pace: float
) -> list[Choice]:
    """What the engine is to write: `n` choices for each prompt."""
    stop = body.get("stop") or []
    marks = [stop] if isinstance(stop, str) else [mark for mark in stop if isinstance(mark, str)]
    salt, n = field(body, "cache_salt", str, ""), field(body, "n", int, 1)
    if not 1 <= n <= N_MAX:
        raise ApiError(400, f"n must be from 1 to {N_MAX}, got {n}.", param="n")
    if max_tokens is not None and max_tokens < 1:
        raise ApiError(400, f"max_tokens must be at least 1, got {max_tokens}.", param="max_tokens")
    made: list[Choice] = []
    for ids in prompts:
        prompt = ids or encode("<|begin|>")
        room = limits.max_model_len - len(prompt)
        if room < (max_tokens or 1):
            raise ApiError(
                400,
                f"This model's maximum context length is {limits.max_model_len} tokens. However, you requested "
                f"{max_tokens or 1} output tokens and your prompt contains {len(prompt)} input tokens.",
                param="input_tokens",
            )
        length = max_tokens or min(limits.output_tokens, room)
        for variant in range(n):
            script = Script(prompt, length, variant=variant, stop=marks)
            made.append(
                Choice(
                    len(made),
                    prompt,
                    script,
                    block_size=limits.block_size,
                    natural_end=max_tokens is None,
                    salt=salt,
                    pace=pace,
                )
            )
    return made
