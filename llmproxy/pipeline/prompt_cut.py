"""The beginning of a prompt as a request of its own, for a new replica to compute before it serves.

A prompt is counted in bytes as in `prompts.py`: what is cut off there is what its blocks do not cover. Nothing else is
kept of a request, except what its blocks are told apart by (model, `cache_salt`) and words out of a fixed list.
"""

import json
from typing import Any, Final

import msgspec

from llmproxy.pipeline.prompts import PromptFields

_SHAPING: Final = ("model", "tools", "cache_salt")
"""What else decides about an engine's KV blocks and is in the hashes of blocks. Whatever else a request says (who asks,
what for) is left out."""
_UNCOVERED: Final = ("documents", "chat_template")
"""What makes other KV blocks of the same messages and is in no hash: only this request may have said it."""
_TOOL_CHOICES: Final = ("auto", "none", "required")
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_ESCAPE_MAX: Final = 12
"""Bytes of the longest character in a JSON string: an escaped surrogate pair."""
_FILLER: Final = {"role": "user", "content": "."}


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(b"")


def beginning(body: bytes, size: int) -> dict[str, Any] | None:
    """A request with the first `size` bytes of the prompt in `body`, a chat or text completion. None where it cannot
    be cut: what lies there is no text, or more than the prompt's first bytes would have to be kept."""
    try:
        fields = msgspec.json.decode(body, type=PromptFields)
        whole = json.loads(body)
        left = size - len(fields.tools) - len(fields.system) - len(fields.instructions)
        if left < 0 or any(whole.get(name) for name in _UNCOVERED):
            return None
        kept: dict[str, Any] = {name: whole[name] for name in _SHAPING if name in whole}
        if whole.get("tool_choice") in _TOOL_CHOICES:
            kept["tool_choice"] = whole["tool_choice"]
        if fields.messages:
            messages = _first_messages(bytes(fields.messages), left)
            if not messages and not fields.tools:
                return None
            return {**kept, "messages": messages or [_FILLER]}
        prompt = _first_characters(bytes(fields.prompt), left)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return {**kept, "prompt": prompt} if prompt else None


def _first_messages(raw: bytes, left: int) -> list[Any]:
    found: list[Any] = []
    position = 0
    for message in msgspec.json.decode(raw, type=list[msgspec.Raw]):
        text = bytes(message)
        begins = raw.index(text, position)
        position = begins + len(text)
        if position <= left:
            found.append(json.loads(text))
            continue
        content = bytes(msgspec.json.decode(text, type=_Message).content)
        # The last place that looks like it: too little of it is cut rather than too much kept.
        at = text.rindex(content) if content else 0
        first = _first_characters(content, left - begins - at) if content else ""
        if first:
            found.append({**_said_before(text, at), "content": first})
        break
    return found


def _said_before(message: bytes, at: int) -> dict[str, Any]:
    """What a message says before its content, which begins `at`: what comes behind it is in no block. Of that a role is
    taken, without which it is no message."""
    said: dict[str, Any] = json.loads(message[:at] + b'""}')
    role = json.loads(message).get("role")
    return {"role": role, **said} if role in _ROLES else said


def _first_characters(raw: bytes, size: int) -> str:
    """Of a JSON string (in quotes), as much as `size` bytes of it say; empty when it is none."""
    if raw[:1] != b'"':
        return ""
    longest = min(size, len(raw) - 1)
    for end in range(longest, max(longest - _ESCAPE_MAX, 0), -1):
        try:
            found = json.loads(raw[:end] + b'"')
            found.encode()
        except ValueError:
            continue
        return str(found)
    return ""
