"""From configuration to membership, as pure functions: which descriptions a pool has, and which live backends stay."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from llmproxy.config.backend import BackendConfig
from llmproxy.config.model import PoolConfig
from llmproxy.control.resolver import Address
from llmproxy.core.backend import Backend, BackendSpec

Resolve = Callable[[str, int], Sequence[Address] | None]
"""The known addresses of a host and port, without waiting; None when unknown."""

_log = logging.getLogger("llmproxy.control.members")


def specs(pool: str, config: PoolConfig, resolve: Resolve) -> tuple[BackendSpec, ...]:
    """The pool's backends. With `resolve: true` each known address of the name is one; a name without any is none."""
    found: dict[str, BackendSpec] = {}
    for backend in config.backends:
        for spec in _expanded(backend, pool, resolve):
            if found.setdefault(spec.id, spec) is not spec:
                _log.warning("pool %s: backend %s is listed twice; the first is used", pool, spec.id)
    return tuple(found.values())


def _expanded(config: BackendConfig, pool: str, resolve: Resolve) -> list[BackendSpec]:
    spec = config.spec(pool)
    if not config.resolve:
        return [spec]
    # In a fixed order, so that a rotated DNS answer is not a new membership.
    addresses = sorted({sockaddr[0] for _, sockaddr in resolve(spec.host, spec.port) or ()})
    return [_at(spec, address) for address in addresses]


def _at(spec: BackendSpec, address: str) -> BackendSpec:
    """`spec` at one of its addresses. The name stays what certificates are checked against."""
    scheme = "https" if spec.tls else "http"
    netloc = f"[{address}]:{spec.port}" if ":" in address else f"{address}:{spec.port}"
    return replace(
        spec,
        id=f"{spec.id}-{hashlib.sha256(address.encode()).hexdigest()[:6]}",
        url=f"{scheme}://{netloc}{spec.base_path}",
        host=address,
        server_name=spec.server_name or spec.host,
    )


def merge(current: Sequence[Backend], wanted: Sequence[BackendSpec]) -> tuple[Backend, ...]:
    """The live backends for `wanted`, in its order: those of `current` that are still the same server, else new ones.

    A kept backend gets its new description here, so call this only right before swapping the membership.
    """
    live = {backend.id: backend for backend in current}
    members = []
    for spec in wanted:
        backend = live.get(spec.id)
        if backend is not None and is_same_server(backend.spec, spec):
            backend.spec = spec
        else:
            backend = Backend(spec)
        members.append(backend)
    return tuple(members)


def is_same_server(old: BackendSpec, new: BackendSpec) -> bool:
    """Whether they differ at most in how much work it gets, in its price, or in which GPU is looked at for it."""
    differing = replace(old, weight=new.weight, max_concurrency=new.max_concurrency, gpu=new.gpu)
    return replace(differing, price_per_hour=new.price_per_hour) == new
