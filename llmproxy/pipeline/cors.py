"""Cross-origin access for browsers (Fetch standard, CORS protocol). Off unless origins are configured."""

import re
from typing import Final

from llmproxy.config.model import CorsConfig
from llmproxy.wire.inbound import InboundRequest

_LINES: Final = re.compile(rb"^access-control-[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)

_EXPOSED: Final = (
    b"X-Request-Id, X-LLMProxy-Backend, X-LLMProxy-Error, Retry-After, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


def without_cors(lines: bytes) -> bytes:
    """An engine's header lines without its own say on the matter: browsers refuse an answer with two."""
    return _LINES.sub(b"", lines)


def cors_lines(cors: CorsConfig, request: InboundRequest) -> bytes:
    """Header lines for an answer to `request`; nothing when CORS is off or the origin is not allowed."""
    if not cors.origins:
        return b""
    origin = request.header(b"origin")
    if origin is None:
        return b""
    if "*" in cors.origins:
        allowed = b"*"
    elif origin.decode("latin-1") in cors.origins:
        allowed = origin
    else:
        return b"Vary: Origin\r\n"
    return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\nAccess-Control-Expose-Headers: %b\r\n" % (
        allowed,
        _EXPOSED,
    )


def is_preflight(request: InboundRequest) -> bool:
    """Whether a browser asks for permission."""
    return request.method == b"OPTIONS" and request.header(b"access-control-request-method") is not None


def preflight_lines(cors: CorsConfig, request: InboundRequest) -> bytes:
    """Header lines of the answer to a preflight."""
    lines = cors_lines(cors, request)
    if b"Access-Control-Allow-Origin" not in lines:
        return lines
    wanted = request.header(b"access-control-request-headers") or b"Authorization, Content-Type"
    return lines + (
        b"Access-Control-Allow-Methods: GET, POST, DELETE\r\nAccess-Control-Allow-Headers: %b\r\n"
        b"Access-Control-Max-Age: %d\r\n" % (wanted, int(cors.max_age))
    )
