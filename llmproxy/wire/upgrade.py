"""`Upgrade` is never granted, so a request that asks for it is taken as plain HTTP/1.1, with its body (RFC 9110, 7.8).
llhttp sees it otherwise: it stops behind the head, for another protocol to go on there."""

import asyncio
from typing import Any

import httptools

from llmproxy.wire.inbound import InboundRequest


def has_body_behind(request: InboundRequest, parser: Any) -> bool:
    """Whether `parser`, seeing `Upgrade`, has let `request` end at its head although a body follows."""
    return bool((request.content_length or request.chunked) and parser.should_upgrade())


def parser_behind(request: InboundRequest, sink: asyncio.Protocol) -> Any:
    """A parser for `sink` that stands behind a head without `Upgrade`, but with the same framing. It calls back for the
    head, too."""
    framing = (
        b"Transfer-Encoding: chunked" if request.chunked else b"Content-Length: %d" % (request.content_length or 0)
    )
    parser = httptools.HttpRequestParser(sink)
    parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
    return parser
