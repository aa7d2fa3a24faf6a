"""A pool: the backends that serve the same models, with the decisions that belong to them.

Long-lived: a reload replaces `backends`, `settings` and, where its options changed, `routing`, each whole;
requests in flight keep what they captured.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import HealthRegistry, RetryBudget, RoutingPolicy

S = TypeVar("S")


class Pool(Generic[S]):
    """`settings` is the pool's part of the configuration (`llmproxy.config.PoolConfig`), which core does not know.

    `bounded` says whether any backend has a `max_concurrency`; if none has, no request ever waits for room.
    """

    def __init__(
        self,
        name: str,
        settings: S,
        routing: RoutingPolicy,
        health: HealthRegistry,
        retries: RetryBudget,
        queue: Any,
    ) -> None:
        self.name = name
        self.settings = settings
        self.set_routing(routing)
        self.health = health
        self.retries = retries
        self.queue = queue
        self.backends: tuple[Backend, ...] = ()
        self.bounded = False

    def set_routing(self, routing: RoutingPolicy) -> None:
        """Choose differently from now on. A policy that says `learns = False` is not told what became of requests."""
        self.routing = routing
        self.learns = getattr(routing, "learns", True)

    def set_members(self, backends: Sequence[Backend], now: float) -> None:
        """Swap the membership (the registrar's call). Leavers drain; the routing policy forgets them."""
        kept = set(backends)
        for backend in self.backends:
            if backend not in kept:
                self.routing.forget(backend)
        self.backends = tuple(backends)
        self.bounded = any(backend.spec.max_concurrency is not None for backend in self.backends)
        self.health.set_members(self.backends, now)
