"""Who may ask the admin port: one pure decision, and its middleware. Denied by default; see the package."""

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from llmproxy.admin.errors import error_response

OPEN_PATHS = frozenset({"/livez", "/readyz"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to who may not."""

    status: int
    code: str
    message: str


def refusal(method: str, path: str, headers: Mapping[str, str], token: str, *, on_loopback: bool) -> Refusal | None:
    """Why a request is refused, or None when it may pass. `headers` is looked up by canonical names."""
    if path in OPEN_PATHS and method in _SAFE_METHODS:
        return None
    if method not in _SAFE_METHODS and _is_cross_origin(headers):
        return Refusal(403, "cross_origin", "the admin API takes no requests that another site makes a browser send")
    if token:
        if _has_token(headers.get("Authorization", ""), token):
            return None
        return Refusal(401, "invalid_token", "the admin API needs `Authorization: Bearer <admin.token>`")
    if not on_loopback:
        return Refusal(403, "token_required", "without admin.token the admin API is served on loopback only")
    if not is_loopback(_host_of(headers.get("Host", ""))):
        return Refusal(403, "host_not_allowed", "without admin.token, ask by a loopback name such as 127.0.0.1")
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine. Any 127/8 address, ::1, `localhost` and names below it."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def guard(token: Callable[[], str], *, on_loopback: bool) -> Middleware:
    """The middleware that applies `refusal` to every request, unknown paths included."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = refusal(request.method, request.path, request.headers, token(), on_loopback=on_loopback)
        if refused is None:
            return await handler(request)
        response = error_response(refused.status, refused.code, refused.message)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="llmproxy admin"'
        return response

    return middleware


def _has_token(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    # Bytes, because compare_digest takes no other text than ASCII; undecodable header bytes stay what they were.
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return same and scheme.lower() == "bearer"


def _is_cross_origin(headers: Mapping[str, str]) -> bool:
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("Origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("Host", "").lower()
    except ValueError:
        return True


def _host_of(host_header: str) -> str:
    """The host of a Host header without its port; empty when it is malformed."""
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""
