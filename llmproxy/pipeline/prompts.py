"""The prompt as routing sees it: its size, and a chain of hashes over its leading blocks.

What counts as the prompt is the JSON text of what the engine's chat template puts in front of the answer: tools, system
prompt, messages in order (or `prompt`, or `input`). It is hashed as the client wrote it, never decoded: a client that
sends a conversation again, one turn longer, spells the turns before it the same way. Model and `cache_salt` go into the
first block, as prompts of different ones share no KV blocks.
"""

import re
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from llmproxy.core.prompt import BLOCK_BYTES, NO_PROMPT, Prompt

BLOCKS_MAX: Final = 1024
"""Two megabytes of prompt: what comes behind that is not told apart."""
_MEDIA: Final = re.compile(rb";base64,[A-Za-z0-9+/=_-]{512,}")
_MEDIA_BYTES: Final = 4096
"""What a picture or a sound counts as: about a thousand tokens, however many bytes it has."""


class PromptFields(msgspec.Struct, gc=False):
    """The top-level fields a prompt consists of, undecoded."""

    tools: msgspec.Raw = msgspec.Raw(b"")
    system: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    cache_salt: Any = None


_DECODE: Final = msgspec.json.Decoder(PromptFields).decode


def prompt_of(body: bytes, model: str | None, secret: bytes = b"") -> Prompt:
    """The prompt in a JSON request. `secret` makes the hashes worthless to whoever does not know it."""
    try:
        fields = _DECODE(body)
    except (msgspec.DecodeError, RecursionError):
        return NO_PROMPT
    # Without its end (`"` or `]`), a prompt is the beginning of the same prompt one turn later.
    text = b"".join(
        (fields.tools, fields.system, fields.instructions, bytes(fields.messages or fields.prompt or fields.input)[:-1])
    )
    root = xxh3_64_intdigest(b"%b\0%b\0%b" % (secret, (model or "").encode(), repr(fields.cache_salt).encode()))
    return Prompt(_size(text), chain(text, root))


def chain(text: bytes, root: int) -> list[int]:
    """A hash for each full block, each also over all blocks before it."""
    blocks = []
    view = memoryview(text)
    for end in range(BLOCK_BYTES, min(len(text), BLOCKS_MAX * BLOCK_BYTES) + 1, BLOCK_BYTES):
        root = xxh3_64_intdigest(view[end - BLOCK_BYTES : end], root)
        blocks.append(root)
    return blocks


def _size(text: bytes) -> int:
    size = len(text)
    if text.find(b";base64,") >= 0:
        size -= sum(max(len(media) - _MEDIA_BYTES, 0) for media in _MEDIA.findall(text))
    return size
