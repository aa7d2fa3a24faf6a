"""A request as it came off the wire: its head, checked, and its body, whole or still coming."""

from collections.abc import Callable
from typing import Any

from llmproxy.core.errors import BadRequest, ProxyError
from llmproxy.core.identity import Identity
from llmproxy.wire import fields
from llmproxy.wire.fields import HeaderList

LOOSE_PARTS = 512
FIELDS_MAX = 500


class InboundRequest:
    """One client request. `forward` holds the header lines that travel on, already joined, without framing,
    `Host`, `Authorization` and what the proxy adds."""

    __slots__ = (
        "arrived",
        "authorization",
        "body",
        "body_bytes",
        "chunked",
        "complete",
        "content_length",
        "content_type",
        "debug",
        "error",
        "expect_continue",
        "forward",
        "forwarded_for",
        "forwarded_host",
        "forwarded_proto",
        "headers",
        "held",
        "host",
        "identity",
        "keep_alive",
        "limit",
        "loose",
        "method",
        "minor",
        "on_body",
        "overflows",
        "parts",
        "query",
        "raw_path",
        "request_id",
        "streamed",
        "tag",
        "target",
        "upgrade",
        "via",
    )

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived
        self.method = b""
        self.target = b""
        self.raw_path = b""
        self.query = b""
        self.minor = 1
        self.headers: HeaderList = []
        self.forward = b""
        self.keep_alive = True
        self.host = b""
        self.content_length: int | None = None
        self.chunked = False
        self.content_type = b""
        self.authorization: bytes | None = None
        self.request_id: bytes | None = None
        self.expect_continue = False
        self.upgrade = b""
        self.via: bytes | None = None
        self.forwarded_for: bytes | None = None
        self.forwarded_host: bytes | None = None
        self.forwarded_proto: bytes | None = None
        self.debug = b""
        # The body: collected in `parts` up to `limit`, joined into `body`; or handed on piece by piece, from the start
        # or, if it may overflow, from there on. `held` of its bytes are counted as buffered.
        self.limit = 0
        self.overflows = False
        self.held = 0
        self.streamed = False
        self.parts: list[bytes] = []
        self.loose = LOOSE_PARTS
        self.body = b""
        self.body_bytes = 0
        self.complete = False
        self.on_body: Callable[[bytes], None] | None = None
        self.error: ProxyError | None = None
        # The handler's own notes about this request: what it asks for, and who asks.
        self.tag: Any = None
        self.identity: Identity | None = None

    def read_head(self, method: bytes, target: bytes, version: str, headers: HeaderList) -> None:
        """Check the head and sort its fields. `headers` come from llhttp, which has refused malformed lines,
        duplicate and conflicting lengths and unknown codings. Raises `BadRequest`."""
        if len(headers) > FIELDS_MAX:
            raise BadRequest(
                f"the request has more than {FIELDS_MAX} header fields", code="headers_too_large", status=431
            )
        self.method = method
        self.headers = headers
        if version == "1.0":
            self.minor = 0
        elif version != "1.1":
            raise BadRequest(f"HTTP/{version} is not spoken here; use HTTP/1.1", code="http_version", status=505)
        forward: list[bytes] = []
        hosts = 0
        connection: list[bytes] = []
        kind_of = fields.REQUEST.get
        for name, value in headers:
            kind = kind_of(name.lower())
            if kind is None:
                forward.append(b"%b: %b\r\n" % (name, value))
            elif kind == fields.HOST:
                hosts += 1
                self.host = value.strip()
            elif kind == fields.CONTENT_TYPE:
                if self.content_type:
                    raise BadRequest("Content-Type is given twice", code="duplicate_header")
                self.content_type = value
                forward.append(b"%b: %b\r\n" % (name, value))
            elif kind == fields.CONTENT_LENGTH:
                self.content_length = fields.parse_length(value.strip())
            elif kind == fields.CONNECTION:
                connection.append(value)
            elif kind == fields.AUTHORIZATION:
                if self.authorization is not None:
                    raise BadRequest("Authorization is given twice", code="duplicate_header")
                self.authorization = value
            else:
                self._rare(kind, value)
        if hosts != 1 and (hosts or self.minor):
            raise BadRequest("exactly one Host header is required", code="invalid_host")
        self.read_target(target)
        if connection:
            forward = self._without_nominated(connection, forward)
        self.forward = b"".join(forward)

    def read_target(self, target: bytes) -> None:
        """Split the target into path and query; an absolute-form target also gives the host (RFC 9112, 3.2.2)."""
        if target[:1] != b"/":
            scheme, found, rest = target.partition(b"://")
            if target == b"*" and self.method == b"OPTIONS":
                rest = b"/*"
            elif not found or scheme.lower() not in (b"http", b"https"):
                raise BadRequest("the request target must be a path or an http:// URL", code="invalid_target")
            else:
                self.host, slash, rest = rest.partition(b"/")
                rest = slash + rest or b"/"
                if not self.host:
                    raise BadRequest("the request target has no host", code="invalid_target")
            target = rest
        if not target.isascii() or target.find(b"#") >= 0:
            raise BadRequest("the request target has characters that must be percent-encoded", code="invalid_target")
        if self.host and not fields.is_host(self.host):
            raise BadRequest("the Host header is malformed", code="invalid_host")
        self.target = target
        self.raw_path, _, self.query = target.partition(b"?")

    def header(self, name: bytes) -> bytes | None:
        """The first value of header `name` (lower case), or None."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    def tidy(self) -> None:
        """Join the small pieces of a body that comes in very many: each costs far more memory than its bytes."""
        start = self.loose - LOOSE_PARTS
        self.parts[start:] = [b"".join(self.parts[start:])]
        self.loose += 1

    def hand_on(self) -> bool:
        """Pass on what has come of a streamed body, in one piece; False when nobody takes it yet."""
        if self.on_body is None:
            return False
        if self.parts:
            body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
            self.parts.clear()
            self.on_body(body)
        return True

    def finish_body(self) -> None:
        """The last byte of the body has arrived."""
        self.complete = True
        if self.streamed:
            if self.hand_on() and self.on_body is not None:
                self.on_body(b"")
        elif self.parts:
            self.body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
            self.parts = []

    def _rare(self, kind: int, value: bytes) -> None:
        if kind == fields.REQUEST_ID:
            # Checked at once, because it is told to clients whose requests are refused, too.
            value = value.strip()
            self.request_id = value if fields.is_sane_request_id(value) else None
        elif kind == fields.VIA:
            self.via = value if self.via is None else self.via + b", " + value
        elif kind == fields.TRANSFER_ENCODING:
            if self.chunked or value.strip().lower() != b"chunked":
                raise BadRequest("Transfer-Encoding must be chunked, once", code="invalid_framing")
            if not self.minor:
                raise BadRequest("HTTP/1.0 has no Transfer-Encoding", code="invalid_framing")
            self.chunked = True
        elif kind == fields.EXPECT:
            if value.strip().lower() != b"100-continue":
                raise BadRequest("the only expectation met here is 100-continue", code="expectation", status=417)
            self.expect_continue = self.minor == 1
        elif kind == fields.UPGRADE:
            self.upgrade = value.strip().lower()
        elif kind == fields.FORWARDED_FOR:
            self.forwarded_for = value if self.forwarded_for is None else self.forwarded_for + b", " + value
        elif kind == fields.FORWARDED_PROTO:
            self.forwarded_proto = value
        elif kind == fields.FORWARDED_HOST:
            self.forwarded_host = value
        elif kind == fields.DEBUG:
            self.debug = value
        elif kind == fields.REFUSED:
            raise BadRequest("a framing header is misspelt with an underscore", code="invalid_framing")
        # Everything else in the table is hop-by-hop or replaced by ours: it ends here.

    def _without_nominated(self, connection: list[bytes], forward: list[bytes]) -> list[bytes]:
        """Drop the fields that Connection names (RFC 9110, 7.6.1)."""
        nominated = {option.strip().lower() for value in connection for option in value.split(b",")}
        nominated -= fields.CONNECTION_OPTIONS
        if not nominated:
            return forward
        return [line for line in forward if line.partition(b":")[0].lower() not in nominated]
