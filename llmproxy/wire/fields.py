"""What each header field means to a proxy: which end here, which are read, which travel on (RFC 9110, 7.6)."""

import re
from functools import lru_cache
from typing import Final

from llmproxy.core.errors import BadRequest

HeaderList = list[tuple[bytes, bytes]]
"""Names and values as they came."""

# One by one: a compiled comparison with a constant looks nothing up.
DROP: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
CONTENT_TYPE: Final = 3
CONNECTION: Final = 4
TRANSFER_ENCODING: Final = 5
AUTHORIZATION: Final = 6
EXPECT: Final = 7
UPGRADE: Final = 8
REQUEST_ID: Final = 9
VIA: Final = 10
FORWARDED_FOR: Final = 11
FORWARDED_PROTO: Final = 12
FORWARDED_HOST: Final = 13
REFUSED: Final = 14
DEBUG: Final = 15

REQUEST: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"content-type": CONTENT_TYPE,
    b"connection": CONNECTION,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"authorization": AUTHORIZATION,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-request-id": REQUEST_ID,
    b"via": VIA,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
    # Hop-by-hop: they speak of this connection only.
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authorization": DROP,
    b"proxy-authenticate": DROP,
    b"te": DROP,
    b"trailer": DROP,
    b"http2-settings": DROP,
    # Ours to say: an identity answer is one whose events can be read.
    b"accept-encoding": DROP,
    b"forwarded": DROP,
    b"x-real-ip": DROP,
    b"x-llmproxy-model": DROP,
    b"x-llmproxy-debug": DEBUG,
    b"x-llmproxy-admin-token": DROP,
    b"x-llmproxy-backend": DROP,
    b"x-llmproxy-error": DROP,
    # Servers that map header names to CGI-style variables read these as the real ones.
    b"content_length": REFUSED,
    b"transfer_encoding": REFUSED,
    b"transfer-encoding_": REFUSED,
    b"content-length_": REFUSED,
}
"""Kind of a request header by its lower-case name; names not listed travel on untouched."""

CONNECTION_OPTIONS: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings", b""})

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


@lru_cache(maxsize=256)
def is_host(value: bytes) -> bool:
    """Whether `value` is a host with an optional port (RFC 3986, 3.2.2). Clients send the same few again and again."""
    return _HOST.fullmatch(value) is not None


def is_sane_request_id(value: bytes) -> bool:
    """Whether a client's request id may be kept: printable, no blanks, at most 128 bytes."""
    return _REQUEST_ID.fullmatch(value) is not None


def parse_length(value: bytes) -> int:
    """The number in a Content-Length. Raises `BadRequest` for anything but digits."""
    if not value.isdigit() or len(value) > 18:
        raise BadRequest("Content-Length is not a number", code="invalid_framing")
    return int(value)
