"""Pools and backends as JSON values."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from llmproxy.admin.deps import AdminDeps
from llmproxy.core.backend import Backend, Gauges, Status
from llmproxy.core.pool import Pool

_BREAKER = {Status.OPEN: "open", Status.HALF_OPEN: "half_open"}


def pool_view(pool: Pool[Any], deps: AdminDeps) -> dict[str, Any]:
    """A pool; `eligible` is how many of its backends may be given work."""
    now = deps.clock()
    return {
        "name": pool.name,
        "eligible": len(pool.health.candidates(now)),
        "in_flight": sum(backend.load.in_flight for backend in pool.backends),
        "backends": [backend_view(pool, backend, deps) for backend in pool.backends],
    }


def backend_view(pool: Pool[Any], backend: Backend, deps: AdminDeps) -> dict[str, Any]:
    """A backend. `weight` is as configured, `effective_weight` as scaled by slow start."""
    now = deps.clock()
    status = pool.health.status(backend, now)
    return {
        "id": backend.id,
        "url": backend.spec.url,
        "state": status.value,
        "breaker": _BREAKER.get(status, "closed"),
        "in_flight": backend.load.in_flight,
        "weight": backend.spec.weight,
        "effective_weight": backend.weight,
        "max_concurrency": backend.spec.max_concurrency,
        "gauges": gauges_view(backend.gauges, now),
        **deps.describe(pool, backend),
    }


def gauges_view(gauges: Gauges | None, now: float) -> Mapping[str, Any] | None:
    """What the backend last said of itself, with the age of it; None when it never did."""
    if gauges is None:
        return None
    values = asdict(gauges)
    del values["max_age_s"]
    if values["gpu"] is not None:
        values["gpu"] = {"age_s": round(now - values["gpu"].pop("at"), 3), **values["gpu"]}
    return {"age_s": round(now - values.pop("at"), 3), "fresh": gauges.is_fresh(now), **values}
