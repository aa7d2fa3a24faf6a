"""Errors the proxy answers with, as types: status, OpenAI code and type, and whose fault it is."""

from enum import Enum

from llmproxy.core.enums import plain


@plain
class Blame(Enum):
    """Who has to act."""

    CLIENT = "client"
    PROXY = "proxy"
    UPSTREAM = "upstream"


class ProxyError(Exception):
    """An answer the proxy makes itself. `message` is shown to the client: no addresses, no secrets, no prompts."""

    status = 500
    code = "internal_error"
    type = "server_error"
    blame = Blame.PROXY

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.close = close
        self.headers = headers
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class BadRequest(ProxyError):
    """400 and its relatives: the request is malformed or too large."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class NotFound(ProxyError):
    """404: no such route or model."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class Unauthorized(ProxyError):
    """401: no key, or one that is not good (RFC 9110, 15.5.2; RFC 6750, 3.1). Never shows what was sent."""

    status = 401
    code = "invalid_api_key"
    type = "invalid_request_error"
    blame = Blame.CLIENT

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, headers=((b"WWW-Authenticate", b"Bearer"),))


class Forbidden(ProxyError):
    """403: a route that is closed by default, or what a key may not be used for."""

    status = 403
    code = "route_not_allowed"
    type = "invalid_request_error"
    blame = Blame.CLIENT


class Overloaded(ProxyError):
    """503 with Retry-After: shed here, before any engine saw it."""

    status = 503
    code = "overloaded"
    blame = Blame.PROXY


class Unavailable(ProxyError):
    """503 with Retry-After: no backend can take it."""

    status = 503
    code = "no_backend_available"
    blame = Blame.UPSTREAM


class UpstreamFailed(ProxyError):
    """502 or 504: every attempt failed."""

    status = 502
    code = "upstream_failed"
    blame = Blame.UPSTREAM


class EngineSaid(ProxyError):
    """An engine's whole answer where only an event-stream can be passed on; `event` is that answer as an event."""

    code = "engine_error"
    blame = Blame.UPSTREAM

    def __init__(self, status: int, event: bytes) -> None:
        super().__init__("the engine answered with an error", status=status)
        self.event = event
        if status < 500:
            self.blame = Blame.CLIENT


class RateLimited(ProxyError):
    """429 with Retry-After: this client has used up what it may. `type` says what of."""

    status = 429
    code = "rate_limit_exceeded"
    type = "requests"
    blame = Blame.CLIENT

    def __init__(
        self, message: str, *, unit: str, retry_after_s: int, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, headers=headers)
        self.type = unit
