"""What is read of an engine's JSON: the token counts it reports, and whether it says that it gave up.

Apart from the readers, which mypyc compiles: msgspec finds a struct's fields in its class body, and a compiled class
has none.
"""

from typing import Any, Final

import msgspec


class Usage(msgspec.Struct, gc=False):
    """Token counts as an engine reports them, in either dialect."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: Any = None
    input_tokens_details: Any = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Whole(msgspec.Struct, gc=False):
    """A non-stream answer, or the answer inside an event of `/v1/messages` and `/v1/responses`."""

    usage: Usage | None = None
    type: Any = None
    stop_reason: Any = None
    object: Any = None
    status: Any = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream."""

    usage: Usage | None = None
    choices: Any = None
    response: Whole | None = None
    message: Whole | None = None


decode_whole: Final = msgspec.json.Decoder(Whole).decode
decode_event: Final = msgspec.json.Decoder(Event).decode
