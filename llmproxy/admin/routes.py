"""What each route of the admin port does. Whether it may is `guard.py`'s business."""

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from llmproxy.admin.deps import AdminDeps
from llmproxy.admin.errors import AdminError
from llmproxy.admin.views import backend_view, pool_view
from llmproxy.core.backend import Backend
from llmproxy.core.errors import ProxyError
from llmproxy.core.pool import Pool


class Routes:
    """The handlers, over the application's `AdminDeps`."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            web.get("/admin/queue", self.queue),
            web.get("/admin/pools", self.pools),
            web.get("/admin/pools/{pool}", self.pool),
            web.get("/admin/pools/{pool}/explain", self.explain),
            web.post("/admin/pools/{pool}/explain", self.explain),
            web.post("/admin/pools/{pool}/backends/{id}/drain", self.drain),
            web.post("/admin/pools/{pool}/backends/{id}/undrain", self.undrain),
            web.get("/admin/tenants", self.tenants),
            web.get("/admin/tenants/{tenant}", self.tenant),
            web.post("/admin/tenants/{tenant}/limits", self.set_limits),
            web.post("/admin/reload", self.reload),
        ]

    async def livez(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def readyz(self, request: web.Request) -> web.Response:
        if self._deps.is_draining():
            return web.json_response({"ready": False, "reason": "draining"}, status=503)
        now = self._deps.clock()
        # Requests to a pool that is scaled wait until a replica comes: kept away, they would never bring one about.
        if not any(pool.elastic or pool.health.candidates(now) for pool in self._deps.pools().values()):
            return web.json_response({"ready": False, "reason": "no_backend_available"}, status=503)
        return web.json_response({"ready": True})

    async def metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._deps.render_metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def queue(self, request: web.Request) -> web.Response:
        return web.json_response({"pools": {name: self._deps.queue(pool) for name, pool in self._deps.pools().items()}})

    async def pools(self, request: web.Request) -> web.Response:
        return web.json_response({"pools": [pool_view(pool, self._deps) for pool in self._deps.pools().values()]})

    async def pool(self, request: web.Request) -> web.Response:
        return web.json_response(pool_view(self._find_pool(request), self._deps))

    async def explain(self, request: web.Request) -> web.Response:
        pool = self._find_pool(request)
        model, prompt_bytes = _question(request)
        body = await request.read() if request.method == "POST" else b""
        if request.method == "POST" and not body:
            raise AdminError(400, "no_body", "POST the body of a request here, or GET without one")
        try:
            return web.json_response(self._deps.explain(pool, body, model, prompt_bytes))
        except ProxyError as error:
            raise AdminError(error.status, error.code, error.message) from None

    async def drain(self, request: web.Request) -> web.Response:
        pool, backend = self._find_backend(request)
        self._deps.audit(request.headers, "drain", {"pool": pool.name, "backend": backend.id})
        pool.health.drain(backend, self._deps.clock())
        return self._changed(pool, backend)

    async def undrain(self, request: web.Request) -> web.Response:
        pool, backend = self._find_backend(request)
        self._deps.audit(request.headers, "undrain", {"pool": pool.name, "backend": backend.id})
        pool.health.undrain(backend, self._deps.clock())
        return self._changed(pool, backend)

    async def tenants(self, request: web.Request) -> web.Response:
        return web.json_response({"tenants": self._deps.tenants()})

    async def tenant(self, request: web.Request) -> web.Response:
        name = request.match_info["tenant"]
        found = await self._deps.tenant(name, request.query.get("model"))
        if found is None:
            raise AdminError(404, "tenant_not_found", f"nothing is known here of a tenant {name!r}")
        return web.json_response(found)

    async def set_limits(self, request: web.Request) -> web.Response:
        name = request.match_info["tenant"]
        try:
            values = json.loads(await request.read())
        except (ValueError, RecursionError):
            raise AdminError(400, "invalid_json", "POST a JSON object of limits here, or null to drop them") from None
        if values is not None and not isinstance(values, dict):
            raise AdminError(400, "invalid_limits", "limits are a JSON object, or null to drop them")
        try:
            await self._deps.set_limits(name, values)
        except ValueError as error:
            raise AdminError(400, "invalid_limits", str(error)) from None
        except ConnectionError:
            message = "the store of limits is out of reach; nothing was changed"
            raise AdminError(503, "limits_unavailable", message) from None
        self._deps.audit(request.headers, "set limits", {"tenant": name, "limits": values})
        return web.json_response({"tenant": name, "override": values})

    async def reload(self, request: web.Request) -> web.Response:
        self._deps.audit(request.headers, "reload", {})
        result = await self._deps.reload()
        if not result.ok:
            message = "the configuration was refused; the old one stays in force"
            raise AdminError(422, "invalid_configuration", message, {"problems": list(result.problems)})
        return web.json_response(
            {"reloaded": True, "changed": result.changed, "needs_restart": list(result.needs_restart)}
        )

    def _changed(self, pool: Pool[Any], backend: Backend) -> web.Response:
        self._deps.on_drain(pool)
        return web.json_response(backend_view(pool, backend, self._deps))

    def _find_pool(self, request: web.Request) -> Pool[Any]:
        name = request.match_info["pool"]
        pools = self._deps.pools()
        if name not in pools:
            raise AdminError(404, "pool_not_found", f"there is no pool {name!r}, only {_listed(pools)}")
        return pools[name]

    def _find_backend(self, request: web.Request) -> tuple[Pool[Any], Backend]:
        pool = self._find_pool(request)
        wanted = request.match_info["id"]
        for backend in pool.backends:
            if backend.id == wanted:
                return pool, backend
        known = _listed(backend.id for backend in pool.backends)
        raise AdminError(404, "backend_not_found", f"pool {pool.name!r} has no backend {wanted!r}, only {known}")


def _question(request: web.Request) -> tuple[str | None, int]:
    """The query's `model` and `prompt_bytes`."""
    query = dict(request.query)
    model, size = query.pop("model", None), query.pop("prompt_bytes", "0")
    if query:
        raise AdminError(400, "unknown_parameter", f"explain takes model and prompt_bytes, not {_listed(query)}")
    if not (size.isascii() and size.isdigit() and len(size) < 10):
        raise AdminError(400, "invalid_parameter", "prompt_bytes must be a whole number below a thousand million")
    return model, int(size)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none at all"
