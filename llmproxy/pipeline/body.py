"""What routing needs from a request's body: decoded once, partially; rewritten by splicing, never re-serialised."""

import re
from typing import Any, Final

import msgspec

from llmproxy.core.errors import BadRequest


class Body(msgspec.Struct, gc=False):
    """The top-level fields of a JSON request that routing reads; everything else is skipped over."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    previous_response_id: Any = None


class Usage(msgspec.Struct, gc=False):
    """Token counts as an engine reports them, in either dialect."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: Any = None


_DECODE: Final = msgspec.json.Decoder(Body).decode
_DECODE_ALL: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_STRING: Final = rb'"(?:[^"\\]|\\.)*"'
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)
_ONE_MODEL: Final = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*(' + _STRING + rb")", re.DOTALL)


def decode(body: bytes) -> Body:
    """Decode a JSON request. Raises `BadRequest`."""
    try:
        return _DECODE(body)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the request body is not a JSON object: {error}", code="invalid_json") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply", code="invalid_json") from None


def find_field(body: bytes, name: str) -> str | None:
    """A top-level field as text, for policies that ask for one; None when it is absent or no string or number."""
    try:
        raw = _DECODE_ALL(body).get(name)
        value = None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)


def with_model(body: bytes, name: str) -> bytes:
    """`body` with the top-level `model` replaced, every other byte as it was. The last one counts, as it does for
    engines, when the key is given twice."""
    start, end = _model_span(body)
    return b"%b%b%b" % (body[:start], msgspec.json.encode(name), body[end:])


def _model_span(body: bytes) -> tuple[int, int]:
    """Where the effective value of the top-level `model` stands."""
    matches = _ONE_MODEL.finditer(body)
    first = next(matches, None)
    if first is not None and next(matches, None) is None and b"\\u" not in body and b'\\"model' not in body:
        # One spelling of it in the whole text, and no way to have spelt it otherwise; is it at the top level?
        before = body[: first.start()]
        if before.count(b"{") == 1 and b"[" not in before:
            return first.span(1)
    return _scan_model(body)


def _scan_model(body: bytes) -> tuple[int, int]:
    depth = 0
    expecting_key = False
    key: bytes | None = None
    found: tuple[int, int] | None = None
    for token in _TOKENS.finditer(body):
        mark = body[token.start()]
        if mark == 0x22:
            if depth != 1:
                continue
            if expecting_key:
                key, expecting_key = token.group(), False
            elif key is not None and msgspec.json.decode(key) == "model":
                found = token.span()
        elif mark in b"{[":
            depth += 1
            expecting_key = depth == 1
        elif mark in b"}]":
            depth -= 1
        elif mark == 0x2C and depth == 1:
            expecting_key, key = True, None
    if found is None:
        raise BadRequest("model must be a string", code="invalid_model", param="model")
    return found


def with_usage(body: bytes, options: Any) -> bytes:
    """`body` asking for `usage` at the end of the stream. Appended last, because the last of two equal keys counts."""
    merged = {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}
    head = body.rstrip()
    return b'%b,"stream_options":%b}' % (head[:-1], msgspec.json.encode(merged))


def multipart_model(body: bytes, content_type: bytes) -> tuple[str | None, tuple[int, int]]:
    """The value of a multipart form's `model` field, wherever it stands, and its span in `body`."""
    match = re.search(rb'boundary=(?:"([^"]{1,200})"|([^\s;,"]{1,200}))', content_type, re.IGNORECASE)
    if match is None:
        raise BadRequest("multipart body without a boundary", code="invalid_multipart")
    delimiter = b"--" + (match[1] or match[2])
    position = body.find(delimiter)
    while position >= 0:
        start = position + len(delimiter)
        following = body.find(b"\r\n" + delimiter, start)
        head_end = body.find(b"\r\n\r\n", start)
        if following < 0 or head_end < 0:
            break
        if head_end < following and re.search(
            rb'content-disposition:[^\r\n]*\bname="?model"?[\s;\r]', body[start : head_end + 2], re.IGNORECASE
        ):
            span = (head_end + 4, following)
            return body[span[0] : span[1]].decode("utf-8", "replace").strip(), span
        position = following + 2
    return None, (0, 0)
