"""Heads of answers: the engine's, rebuilt for this client, and the proxy's own."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from llmproxy.core.errors import ProxyError
from llmproxy.pipeline.routes import Dialect
from llmproxy.wire.fields import RESPONSE_DROP
from llmproxy.wire.inbound import HeaderList

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii", "ignore") for status in HTTPStatus
}
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


@dataclass(slots=True)
class AnswerHead:
    """An engine's answer head, sorted once: header lines that travel on, and what decides how its body is read."""

    lines: bytes
    content_type: bytes
    retry_after: bool
    via: bool


def sort_head(headers: HeaderList) -> AnswerHead:
    """Drop what belongs to the upstream connection (RFC 9110, 7.6.1), keep the rest byte for byte."""
    lines: list[bytes] = []
    content_type = b""
    retry_after = via = False
    nominated: set[bytes] | None = None
    for name, value in headers:
        lower = name.lower()
        if lower in RESPONSE_DROP:
            if lower == b"connection" and value.lower() not in (b"close", b"keep-alive"):
                nominated = {option.strip().lower() for option in value.split(b",")}
            continue
        if lower == b"content-type":
            content_type = value.lower()
        elif lower == b"retry-after":
            retry_after = True
        elif lower == b"via":
            via = True
            value = value + b", 1.1 llmproxy"
        lines.append(b"%b: %b\r\n" % (name, value))
    if nominated:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in nominated]
    return AnswerHead(b"".join(lines), content_type, retry_after, via)


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` with its line end."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def error_object(error: ProxyError, dialect: Dialect) -> dict[str, object]:
    """The error in the path's dialect."""
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_event(error: ProxyError, dialect: Dialect) -> bytes:
    """The error as the last event of an event-stream."""
    data = json.dumps(error_object(error, dialect))
    prefix = "event: error\n" if dialect is Dialect.ANTHROPIC else ""
    return f"{prefix}data: {data}\n\n".encode()


def own_answer(
    status: int,
    body: bytes,
    *,
    keep_alive: bool,
    minor: int,
    headers: bytes = b"",
    content_type: bytes = b"application/json",
) -> bytes:
    """A whole answer of the proxy's own. `headers` are complete lines."""
    connection = (
        b"" if keep_alive and minor else b"Connection: keep-alive\r\n" if keep_alive else b"Connection: close\r\n"
    )
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n%b" % (
        status_line(status), content_type, len(body), headers, connection, body,
    )  # fmt: skip


def error_answer(
    error: ProxyError, dialect: Dialect, *, keep_alive: bool, minor: int, headers: bytes = b"", bodyless: bool = False
) -> bytes:
    """The error as a whole answer. `X-LLMProxy-Error` tells it from an engine's."""
    body = json.dumps(error_object(error, dialect)).encode()
    lines = [headers, b"X-LLMProxy-Error: %b\r\n" % error.code.encode()]
    if error.retry_after_s is not None:
        lines.append(b"Retry-After: %d\r\n" % error.retry_after_s)
    lines.extend(b"%b: %b\r\n" % field for field in error.headers)
    answer = own_answer(error.status, body, keep_alive=keep_alive, minor=minor, headers=b"".join(lines))
    return answer[: -len(body)] if bodyless else answer
