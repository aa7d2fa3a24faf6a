"""The admin server: aiohttp on its own port, out of the data plane's way."""

from aiohttp import web

from llmproxy.admin.deps import AdminDeps
from llmproxy.admin.errors import as_json
from llmproxy.admin.guard import guard, is_loopback
from llmproxy.admin.routes import Routes
from llmproxy.control.side_port import SidePort

BODY_MAX_BYTES = 4 * 1024 * 1024
"""Only `explain` reads a body, which is a chat request."""


class AdminServer(SidePort):
    """The routes that `deps` makes possible, guarded."""

    def __init__(self, deps: AdminDeps, *, host: str, port: int) -> None:
        app = web.Application(
            middlewares=[guard(deps.token, on_loopback=is_loopback(host), holders=deps.holders), as_json],
            client_max_size=BODY_MAX_BYTES,
        )
        app.add_routes(Routes(deps).table())
        for routes in deps.more:
            app.add_routes(routes.table())
        app.on_response_prepare.append(_harden)
        super().__init__(app, host=host, port=port)


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "llmproxy"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
