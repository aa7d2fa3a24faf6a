"""What the admin port may see and do: the routes' wishes, met by the parts of a proxy."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.admin.cost_routes import CostRoutes
from llmproxy.admin.deps import AdminDeps
from llmproxy.admin.guard import Holder, name_of
from llmproxy.admin.scaling_routes import ScalingRoutes
from llmproxy.autoscaling import Autoscaling
from llmproxy.config.model import Config
from llmproxy.control.costs import Costs
from llmproxy.control.registrations import Registrations
from llmproxy.control.reload import Reloader, ReloadResult, Trigger
from llmproxy.control.scaling.audit import Audit
from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock
from llmproxy.limiting import Limiting
from llmproxy.pipeline.explain import asked, decision
from llmproxy.pipeline.handler import Handler
from llmproxy.pipeline.snapshot import ServingPool
from llmproxy.policy.admission.report import report
from llmproxy.policy.health.registry import Health


@dataclass(frozen=True, slots=True)
class AdminViews:
    """`config` and `pools` give those in force."""

    config: Callable[[], Config]
    pools: Callable[[], Mapping[str, ServingPool]]
    health: Mapping[str, Health]
    clock: Clock
    handler: Handler
    limiting: Limiting
    reloader: Reloader
    autoscaling: Autoscaling
    costs: Costs
    registrations: Registrations
    render_metrics: Callable[..., tuple[bytes, str]]
    advise: Callable[[str], Awaitable[Mapping[str, Any]]]
    audit: Audit

    def deps(self) -> AdminDeps:
        """For the admin server."""
        return AdminDeps(
            pools=self.pools,
            clock=self.clock,
            reload=self._reload,
            render_metrics=self.render_metrics,
            is_draining=lambda: self.handler.draining,
            token=lambda: self.config().admin.token,
            holders=self._holders,
            more=(
                CostRoutes(self.costs),
                ScalingRoutes(self.autoscaling.all, self.registrations, self._who, self.advise),
            ),
            on_drain=lambda pool: self.handler.room(pool).freed(),
            audit=lambda headers, what, facts: self.audit.write(self._who(headers), what, "", **facts),
            describe=self._describe,
            explain=self._explain,
            queue=lambda pool: report(pool.queue, self.clock()),
            tenants=self.limiting.tenants,
            tenant=lambda name, model: self.limiting.tenant(self.config(), name, model),
            set_limits=self.limiting.set_limits,
        )

    async def _reload(self) -> ReloadResult:
        return await self.reloader.reload(Trigger.ADMIN)

    def _explain(self, pool: ServingPool, body: bytes, model: str | None, prompt_bytes: int) -> dict[str, Any]:
        """Where a request would go. Raises `ProxyError` for a body that is no request."""
        return decision(pool, asked(self.handler, body, model, prompt_bytes), self.clock())

    def _who(self, headers: Mapping[str, str]) -> str:
        """Who asks, for the audit log."""
        return name_of(headers, self.config().admin.token, self._holders())

    def _holders(self) -> list[Holder]:
        return [Holder(one.name, one.role, one.token) for one in self.config().admin.tokens]

    def _describe(self, pool: ServingPool, backend: Backend) -> dict[str, str]:
        return {"breaker": self.health[pool.name].breaker(backend, self.clock()).value}
