"""What the admin port needs of the application, and nothing more."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmproxy.admin.guard import Holder
from llmproxy.control.reload import ReloadResult
from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool


def _no_one(pool: Pool[Any]) -> None:
    return None


def _nothing(pool: Pool[Any], backend: Backend) -> Mapping[str, Any]:
    return {}


def _nobody_knows(pool: Pool[Any], body: bytes, model: str | None, prompt_bytes: int) -> Mapping[str, Any]:
    return {}


def _no_queue(pool: Pool[Any]) -> Mapping[str, Any]:
    return {}


def _no_tenants() -> Mapping[str, Any]:
    return {}


def _not_noted(headers: Mapping[str, str], what: str, facts: Mapping[str, Any]) -> None:
    return None


async def _no_tenant(name: str, model: str | None) -> Mapping[str, Any] | None:
    return None


async def _no_limits(name: str, values: Mapping[str, Any] | None) -> None:
    raise ValueError("nobody is limited")


@dataclass(frozen=True, slots=True)
class AdminDeps:
    """Each is asked at every request, so that a reload needs no restart of the admin port."""

    pools: Callable[[], Mapping[str, Pool[Any]]]
    clock: Clock
    reload: Callable[[], Awaitable[ReloadResult]]
    render_metrics: Callable[[], tuple[bytes, str]]
    """The metrics page and its content type."""
    is_draining: Callable[[], bool]
    """Whether the process is on its way out (SIGTERM)."""
    token: Callable[[], str]
    """The bearer token; empty when there is none."""
    on_drain: Callable[[Pool[Any]], None] = _no_one
    """Told after a backend was drained or undrained: requests that wait for a place may now have one."""
    audit: Callable[[Mapping[str, str], str, Mapping[str, Any]], None] = _not_noted
    """Told what is about to be changed, with the headers of the request that asks for it."""
    holders: Callable[[], Sequence[Holder]] = tuple
    """Further tokens, with their roles."""
    more: Sequence[Any] = ()
    """Further sets of routes (anything with a `table`)."""
    describe: Callable[[Pool[Any], Backend], Mapping[str, Any]] = _nothing
    """Further facts about a backend to show, such as what its breaker counted."""
    explain: Callable[[Pool[Any], bytes, str | None, int], Mapping[str, Any]] = _nobody_knows
    """Where a request would go now, and why: the body of one, its model, and the size of its prompt where there is no
    body. Raises `ProxyError` for a body that is no request."""
    queue: Callable[[Pool[Any]], Mapping[str, Any]] = _no_queue
    """Who waits for a place in a pool."""
    tenants: Callable[[], Mapping[str, Any]] = _no_tenants
    """What each tenant used."""
    tenant: Callable[[str, str | None], Awaitable[Mapping[str, Any] | None]] = _no_tenant
    """What a tenant used and has left, for all models or for one; None for one that nobody knows."""
    set_limits: Callable[[str, Mapping[str, Any] | None], Awaitable[None]] = _no_limits
    """Another quota for a tenant, or (None) its tier's again. Raises ValueError for what is no quota, and
    ConnectionError when that cannot be kept now."""
