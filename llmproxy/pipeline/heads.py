"""The two heads of an exchange: the request's as the backend gets it, the answer's as the client gets it."""

import re
from typing import Final

from llmproxy.pipeline.answer import status_line
from llmproxy.pipeline.cors import without_cors
from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.links import Link
from llmproxy.pipeline.routes import wire_path
from llmproxy.pipeline.snapshot import Target
from llmproxy.wire.relay import Framing, Relay

_KEYS: Final = re.compile(rb"^(?:x-)?api-key:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_LIMITS: Final = re.compile(rb"^x-ratelimit-[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_SENDS_LENGTH = frozenset({b"POST", b"PUT", b"PATCH"})


def request_head(x: Exchange, target: Target, link: Link) -> bytes:
    """What the client sent, with what belongs to its connection taken out and what a proxy says put in."""
    request, connection = x.request, x.connection
    path = request.target
    if path != x.route.path:
        path = wire_path(request.raw_path)
        if not x.route.path.endswith(b"/"):
            # An engine would redirect there, and its redirect would name its own address.
            path = path.removesuffix(b"/")
        if request.target.find(b"?") >= 0:
            path = b"%b?%b" % (path, request.query)
    authorization, forward = target.terms.authorization, request.forward
    if target.terms.withholds_keys:
        forward = without_keys(forward)
    elif authorization is None:
        authorization = request.authorization
    peer, proto, host = connection.peer_ip.encode(), None, None
    if x.snapshot.networks and x.snapshot.is_trusted(connection.peer_ip):
        proto, host = request.forwarded_proto, request.forwarded_host
        if request.forwarded_for is not None:
            peer = request.forwarded_for + b", " + peer
    return (
        b"%b %b%b HTTP/1.1\r\n%b%b%b%bAccept-Encoding: identity\r\nX-Request-Id: %b\r\n"
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nVia: %b\r\n\r\n"
    ) % (
        request.method,
        link.base_path,
        path,
        link.host_line,
        forward,
        b"Authorization: %b\r\n" % authorization if authorization is not None else b"",
        _request_framing(x),
        x.id,
        peer,
        proto or (b"https" if connection.tls else b"http"),
        host or request.host,
        b"1.1 llmproxy" if request.via is None else request.via + b", 1.1 llmproxy",
    )


def without_keys(lines: bytes) -> bytes:
    """Header lines without those that carry a client's key; `Authorization` is not among them anyway."""
    return _KEYS.sub(b"", lines) if lines.lower().find(b"api-key:") >= 0 else lines


def _request_framing(x: Exchange) -> bytes:
    request = x.request
    if request.streamed:
        if request.chunked:
            return b"Transfer-Encoding: chunked\r\n"
        return b"Content-Length: %d\r\n" % (request.content_length or 0)
    if x.payload or request.method in _SENDS_LENGTH:
        return b"Content-Length: %d\r\n" % len(x.payload)
    return b""


def answer_head(x: Exchange, relay: Relay) -> tuple[bytes, Framing]:
    """The engine's status and fields with ours, and how the client will know where the body ends."""
    head, link, request = x.answer_head, x.link, x.request
    assert head is not None
    assert link is not None
    status = relay.connection.status
    length = b""
    if request.method == b"HEAD" or status in (204, 304):
        framing = Framing.NONE
        if head.content_length is not None and status != 204:
            length = b"Content-Length: %d\r\n" % head.content_length
    elif relay.complete:
        framing = Framing.LENGTH
        length = b"Content-Length: %d\r\n" % len(relay.held)
    elif head.content_length is not None and not isinstance(x.reader, EventReader):
        framing = Framing.LENGTH
        length = b"Content-Length: %d\r\n" % head.content_length
    elif request.minor:
        framing = Framing.CHUNKED
        length = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = Framing.CLOSE
        request.keep_alive = False
    connection = b""
    if not x.keeps_alive:
        connection = b"Connection: close\r\n"
    elif not request.minor:
        connection = b"Connection: keep-alive\r\n"
    bounds, fields = x.snapshot.bounds, head.lines
    if x.limits and fields.lower().find(b"x-ratelimit-") >= 0:
        # Whoever answered limits this proxy, not this client.
        fields = _LIMITS.sub(b"", fields)
    lines = b"%b%bX-Request-Id: %b\r\n%b%b%b%b%b\r\n" % (
        status_line(status),
        without_cors(fields) if bounds.has_cors else fields,
        x.id,
        link.id_line if bounds.reveal_backend else b"",
        b"" if head.via else b"Via: 1.1 llmproxy\r\n",
        x.site.cors(x.snapshot, request) if bounds.has_cors else b"",
        length,
        connection,
    )
    return lines, framing
