"""The head of an engine's answer, sorted in one pass: how the body is framed, and which lines travel on."""

from typing import Final

from llmproxy.wire.fields import HeaderList

_DROP: Final = 0
_LENGTH: Final = 1
_CODING: Final = 2
_TYPE: Final = 3
_CONNECTION: Final = 4
_RETRY_AFTER: Final = 5
_VIA: Final = 6

_KINDS: Final = {
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"content-type": _TYPE,
    b"connection": _CONNECTION,
    b"retry-after": _RETRY_AFTER,
    b"via": _VIA,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"proxy-authenticate": _DROP,
    b"te": _DROP,
    b"upgrade": _DROP,
    b"x-request-id": _DROP,
    b"x-llmproxy-backend": _DROP,
    b"x-llmproxy-error": _DROP,
    b"x-llmproxy-route": _DROP,
}
"""Answer headers that end here (RFC 9110, 7.6.1) or are read; all others travel on byte for byte."""


class AnswerHead:
    """`lines` are the header lines for the client, without framing; `content_type` is in lower case."""

    __slots__ = ("chunked", "content_length", "content_type", "is_odd", "lines", "retry_after_s", "via")

    def __init__(self, headers: HeaderList) -> None:
        self.content_length: int | None = None
        self.chunked = False
        self.content_type = b""
        self.retry_after_s: float | None = None
        self.via = False
        self.is_odd = False
        """It uses a transfer coding besides chunked, which nobody asked for."""
        lines: list[bytes] = []
        nominated = b""
        kind_of = _KINDS.get
        for name, value in headers:
            lower = name.lower()
            kind = kind_of(lower)
            if kind is None:
                lines += (name, b": ", value, b"\r\n")
            elif kind == _TYPE:
                self.content_type = value.lower()
                lines += (name, b": ", value, b"\r\n")
            elif kind == _LENGTH:
                self.content_length = int(value)
            elif kind == _CODING:
                self.chunked = True
                self.is_odd = self.is_odd or value.strip().lower() != b"chunked"
            elif kind == _RETRY_AFTER:
                digits = value.strip()
                self.retry_after_s = float(digits) if digits.isdigit() and len(digits) < 9 else 0.0
                lines += (name, b": ", value, b"\r\n")
            elif kind == _VIA:
                self.via = True
                lines += (name, b": ", value, b", 1.1 llmproxy\r\n")
            elif kind == _CONNECTION and value.lower() not in (b"close", b"keep-alive"):
                nominated += value + b","
        self.lines = _without_nominated(headers, nominated) if nominated else b"".join(lines)


def _without_nominated(headers: HeaderList, connection: bytes) -> bytes:
    """Rare: `Connection` names further fields that end here. The lines anew, without them."""
    nominated = {b"connection", *(option.strip().lower() for option in connection.split(b","))}
    return AnswerHead([(name, value) for name, value in headers if name.lower() not in nominated]).lines
