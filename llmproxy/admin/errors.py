"""Every error of the admin port, as JSON in the shape of the public port's errors."""

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

_log = logging.getLogger("llmproxy.admin")


def error_response(status: int, code: str, message: str, details: Mapping[str, Any] | None = None) -> web.Response:
    """`{"error": {"message", "code", ...details}}`."""
    return web.json_response({"error": {"message": message, "code": code, **(details or {})}}, status=status)


class AdminError(Exception):
    """Raised by a handler; answered as JSON."""

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details


@web.middleware
async def as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns handlers' and aiohttp's own errors (unknown path, wrong method) into JSON."""
    try:
        return await handler(request)
    except AdminError as error:
        return error_response(error.status, error.code, error.message, error.details)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.path} takes {allowed}, not {request.method}"
        response = error_response(405, "method_not_allowed", message)
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        return error_response(404, "not_found", f"the admin API has no {request.path}")
    except web.HTTPException as error:
        return error_response(error.status, "bad_request", error.reason)
    except Exception:
        _log.exception("admin request %s %s failed", request.method, request.path)
        return error_response(500, "internal_error", "the admin API failed; the proxy's log says why")
