"""What routing needs from a request's body: decoded once, partially; rewritten by splicing, never re-serialised."""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import msgspec

from llmproxy.core.errors import BadRequest


class StreamOptions(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Those that engines know. Others are kept as a dict."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class Body(msgspec.Struct, gc=False):
    """The top-level fields of a JSON request that routing reads; everything else is skipped over. Each may be whatever
    the client wrote, or `...` where that is large and not what was expected."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    previous_response_id: Any = None
    store: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None


class _Expected(Body, gc=False):
    """Nearly all of them. (A class of its own, as whoever reads a `Body` must not rely on these types.)"""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None


_ODD_MAX_BYTES: Final = 10_000
_DECODE: Final = msgspec.json.Decoder(_Expected).decode
_DECODE_ODD: Final = msgspec.json.Decoder(
    msgspec.defstruct("Odd", [(name, msgspec.Raw, msgspec.Raw(b"null")) for name in Body.__struct_fields__], gc=False)
).decode
_VALUE: Final = rb'"[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*){0,1000}")'
_MODEL: Final = re.compile(rb'"model' + _VALUE, re.DOTALL)
_ESCAPED_MODEL: Final = re.compile(
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])' + _VALUE, re.DOTALL
)
_MODELS_MAX: Final = 100_000
_PART_HEAD_MAX_BYTES: Final = 8192
_PARTS_MAX: Final = 2000
_NAMES_MODEL: Final = re.compile(
    rb"\r\ncontent-disposition:[ \t]*form-data"
    rb'(?:;[ \t]*[\w*-]+=(?:"[^"\r\n]*"|[^;"\r\n]*))*?;[ \t]*name=(?:"model"|model)[ \t]*[;\r]',
    re.IGNORECASE,
)


def decode(body: bytes) -> Body:
    """Decode a JSON request. Raises `BadRequest`."""
    try:
        return _DECODE(body)
    except msgspec.ValidationError:
        return _decode_odd(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the request body is not a JSON object: {error}", code="invalid_json") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply", code="invalid_json") from None


def _decode_odd(body: bytes) -> Body:
    """One whose fields are of other types, which is for engines to judge. Nothing large is decoded: JSON's shortest
    lists take twenty times their size as objects."""
    try:
        odd = _DECODE_ODD(body)
        return Body(**{name: _value_of(getattr(odd, name)) for name in Body.__struct_fields__})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the request body is not a JSON object: {error}", code="invalid_json") from None


def _value_of(raw: msgspec.Raw) -> Any:
    if len(raw) > _ODD_MAX_BYTES:
        return ...
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        # A number larger than any.
        return ...


def find_field(body: bytes, name: str) -> str | None:
    """A top-level field as text, for policies that ask for one; None when it is absent or no string or number."""
    try:
        raw = _decoder_of(name)(body).value
        value = msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, ValueError, RecursionError):
        # Among them a name that no decoder can be made for: one with quotes or control characters.
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)


@lru_cache(maxsize=64)
def _decoder_of(name: str) -> Callable[[bytes], Any]:
    """Decodes one field and skips over all others (there may be millions). Names come from the configuration."""
    fields = [("value", msgspec.Raw, msgspec.field(default=msgspec.Raw(b""), name=name))]
    return msgspec.json.Decoder(msgspec.defstruct("Field", fields, gc=False)).decode


def with_model(body: bytes, name: str) -> bytes:
    """`body` with the top-level `model`, a string, replaced, every other byte as it was. The last one counts, as it
    does for engines, when the key is given twice."""
    # Every place that looks like it, at any depth. In JSON the quotes inside a string are escaped, so what follows such
    # a place is a whole value and can be replaced.
    pattern = _ESCAPED_MODEL if b"\\u" in body else _MODEL
    spans = [match.span(1) for match in islice(pattern.finditer(body), _MODELS_MAX)]
    if not spans or len(spans) == _MODELS_MAX:
        raise BadRequest("model must be a string", code="invalid_model", param="model")
    if len(spans) > 1:
        spans = [_effective(body, spans)]
    return _splice(body, spans, msgspec.json.encode(name))


def _effective(body: bytes, spans: list[tuple[int, int]]) -> tuple[int, int]:
    """The one whose change the decoder sees, found by halving: what counts is left to the decoder, which is many times
    faster than any search for the top level in Python."""
    marked = f"{decode(body).model}'"
    mark = msgspec.json.encode(marked)
    while len(spans) > 1:
        upper = spans[len(spans) // 2 :]
        found = decode(_splice(body, upper, mark)).model == marked
        spans = upper if found else spans[: len(spans) // 2]
    return spans[0]


def _splice(body: bytes, spans: list[tuple[int, int]], value: bytes) -> bytes:
    parts: list[bytes] = []
    position = 0
    for start, end in spans:
        parts += (body[position:start], value)
        position = end
    return b"".join((*parts, body[position:]))


def asks_for_usage(options: Any) -> bool:
    """Whether a stream's options ask for `usage` at its end."""
    if isinstance(options, dict):
        return bool(options.get("include_usage"))
    return isinstance(options, StreamOptions) and options.include_usage is True


def with_usage(body: bytes, options: Any) -> bytes:
    """`body` asking for `usage` at the end of the stream. Appended last, because the last of two equal keys counts."""
    others = msgspec.to_builtins(options) if isinstance(options, StreamOptions) else options
    merged = {**others, "include_usage": True} if isinstance(others, dict) else {"include_usage": True}
    head = body.rstrip()
    return b'%b,"stream_options":%b}' % (head[:-1], msgspec.json.encode(merged))


def multipart_model(body: bytes, content_type: bytes) -> tuple[str | None, tuple[int, int]]:
    """The value of a multipart form's `model` field, wherever it stands, and its span in `body`."""
    match = re.search(rb'boundary=(?:"([^"]{1,200})"|([^\s;,"]{1,200}))', content_type, re.IGNORECASE)
    if match is None:
        raise BadRequest("multipart body without a boundary", code="invalid_multipart")
    delimiter = b"--" + (match[1] or match[2])
    span: tuple[int, int] | None = None
    position = body.find(delimiter)
    for _ in range(_PARTS_MAX):
        start = position + len(delimiter)
        following = body.find(b"\r\n" + delimiter, start) if position >= 0 else -1
        if following < 0:
            break
        head_end = body.find(b"\r\n\r\n", start, min(following, start + _PART_HEAD_MAX_BYTES))
        if head_end >= 0 and _NAMES_MODEL.search(body, start, head_end + 2):
            if span is not None:
                # Which of them an engine takes is anybody's guess.
                raise BadRequest("model is given twice", code="invalid_model", param="model")
            span = head_end + 4, following
        position = following + 2
    else:
        raise BadRequest(f"more than {_PARTS_MAX} parts", code="invalid_multipart")
    if span is None:
        return None, (0, 0)
    return body[span[0] : span[1]].decode("utf-8", "replace").strip(), span
