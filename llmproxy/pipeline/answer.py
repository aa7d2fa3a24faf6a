"""Heads of answers: the engine's, rebuilt for this client, and the proxy's own."""

import json
from http import HTTPStatus
from typing import Final

from llmproxy.core.errors import ProxyError
from llmproxy.pipeline.routes import Dialect

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
