"""The admin server: aiohttp on its own port, out of the data plane's way."""

from aiohttp import web

from llmproxy.admin.deps import AdminDeps
from llmproxy.admin.errors import as_json
from llmproxy.admin.guard import guard, is_loopback
from llmproxy.admin.routes import Routes

BODY_MAX_BYTES = 4 * 1024 * 1024
"""Only `explain` reads a body, which is a chat request."""


class AdminServer:
    """`await start()`, `await stop()`; `port` is the real one when 0 was asked for."""

    def __init__(self, deps: AdminDeps, *, host: str, port: int) -> None:
        self._host = host
        self._wanted_port = port
        self._app = web.Application(
            middlewares=[guard(deps.token, on_loopback=is_loopback(host), holders=deps.holders), as_json],
            client_max_size=BODY_MAX_BYTES,
        )
        self._app.add_routes(Routes(deps).table())
        for routes in deps.more:
            self._app.add_routes(routes.table())
        self._app.on_response_prepare.append(_harden)
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        if self._runner is None or not self._runner.addresses:
            return self._wanted_port
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Bind and serve. OSError when the port is taken; `stop` all the same."""
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._wanted_port).start()

    async def stop(self) -> None:
        """Close the port; answers on their way may finish."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "llmproxy"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
