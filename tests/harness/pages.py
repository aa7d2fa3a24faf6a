"""A server of pages, for what reads them: probes, scrapers, collectors."""

import ssl
from typing import Any

from aiohttp import web


class Pages:
    """An HTTP server that answers each path as `answers` says: a status, a text, or a coroutine function."""

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.answers = answers or {}
        self.requests: list[web.BaseRequest] = []
        self.connections: set[Any] = set()

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> Any:
        self.requests.append(request)
        self.connections.add(request.transport)
        answer = self.answers.get(request.path, 404)
        if callable(answer):
            return await answer(request)
        if isinstance(answer, str):
            return web.Response(text=answer)
        return web.Response(status=answer, headers={"Location": "/elsewhere"} if answer in (301, 302) else {})
