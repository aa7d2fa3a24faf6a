"""What a client is told whose request is refused before anyone above has seen it whole."""

import httptools

from llmproxy.core.errors import BadRequest, ProxyError


def malformed(error: httptools.HttpParserError) -> BadRequest:
    """What llhttp does not take."""
    reason = str(error) or type(error).__name__
    if "PRI/Upgrade" in reason:
        return BadRequest("HTTP/2 is not spoken here; use HTTP/1.1", code="http_version", status=505)
    return BadRequest(f"malformed HTTP request: {reason}", code="malformed_request")


def target_too_long() -> BadRequest:
    return BadRequest("the request target is too long", code="uri_too_long", status=414)


def head_too_large() -> BadRequest:
    return BadRequest("the request's headers are too large", code="headers_too_large", status=431)


def body_too_large(limit: int) -> BadRequest:
    return BadRequest(f"the request body is larger than {limit} bytes", code="body_too_large", status=413)


def too_slow() -> BadRequest:
    return BadRequest("the request did not arrive in time", code="request_timeout", status=408)


def too_many_waiting() -> BadRequest:
    return BadRequest("too many pipelined requests", code="too_many_requests", status=429)


def too_many_connections() -> ProxyError:
    return ProxyError("too many connections", status=503, code="too_many_connections", retry_after_s=1)


def too_much_held() -> ProxyError:
    message = "the proxy is holding too many request bodies; try again"
    return ProxyError(message, status=503, code="overloaded", retry_after_s=1)
