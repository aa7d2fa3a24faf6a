"""Who may ask the admin port: one pure decision, and its middleware. Denied by default; see the package."""

import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from llmproxy.admin.errors import error_response

OPEN_PATHS = frozenset({"/livez", "/readyz"})
_SCALER_PATHS = re.compile(r"/admin/scaling/.+|/admin/pools/[^/]+/backends(/[^/]+)?")
"""What the role `scaler` may change."""
_SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to who may not."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a token. Role `viewer` may only look, `scaler` may change scaling too, `admin` everything."""

    name: str
    role: str
    token: str


def refusal(
    method: str,
    path: str,
    headers: Mapping[str, str],
    token: str,
    *,
    on_loopback: bool,
    holders: Sequence[Holder] = (),
) -> Refusal | None:
    """Why a request is refused, or None when it may pass. `headers` is looked up by canonical names."""
    if path in OPEN_PATHS and method in _SAFE_METHODS:
        return None
    if method not in _SAFE_METHODS and _is_cross_origin(headers):
        return Refusal(403, "cross_origin", "the admin API takes no requests that another site makes a browser send")
    if token or holders:
        holder = holder_of(headers, token, holders)
        if holder is not None:
            return None if _may(holder.role, method, path) else _NOT_HIS_ROLE
        return Refusal(401, "invalid_token", "the admin API needs `Authorization: Bearer <admin.token>`")
    if not on_loopback:
        return Refusal(403, "token_required", "without admin.token the admin API is served on loopback only")
    if not is_loopback(_host_of(headers.get("Host", ""))):
        return Refusal(403, "host_not_allowed", "without admin.token, ask by a loopback name such as 127.0.0.1")
    return None


_NOT_HIS_ROLE = Refusal(403, "role_required", "this token's role does not allow that")


def holder_of(headers: Mapping[str, str], token: str, holders: Sequence[Holder]) -> Holder | None:
    """Whose token a request brings. All are compared, so that the time says nothing of which it was."""
    given = headers.get("Authorization", "")
    everyone = [*([Holder("admin", "admin", token)] if token else []), *holders]
    found = [holder for holder in everyone if _has_token(given, holder.token)]
    return found[0] if found else None


def name_of(headers: Mapping[str, str], token: str, holders: Sequence[Holder]) -> str:
    """Who asks, for the audit log: the token's name, or `loopback` where none is needed."""
    holder = holder_of(headers, token, holders)
    return holder.name if holder is not None else "loopback"


def _may(role: str, method: str, path: str) -> bool:
    if role == "admin" or method in _SAFE_METHODS:
        return True
    return role == "scaler" and _SCALER_PATHS.fullmatch(path) is not None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine. Any 127/8 address, ::1, `localhost` and names below it."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def guard(
    token: Callable[[], str], *, on_loopback: bool, holders: Callable[[], Sequence[Holder]] = tuple
) -> Middleware:
    """The middleware that applies `refusal` to every request, unknown paths included."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        known = holders()
        refused = refusal(
            request.method, request.path, request.headers, token(), on_loopback=on_loopback, holders=known
        )
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
