"""A pool: the backends that serve the same models, with the decisions that belong to them.

Long-lived: a reload replaces `backends`, `settings` and, where its options changed, `routing`, each whole;
requests in flight keep what they captured.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import HealthRegistry, Moment, RetryBudget, RoutingPolicy
from llmproxy.core.request import Request

S = TypeVar("S")


class Pool(Generic[S]):
    """`settings` is the pool's part of the configuration (`llmproxy.config.PoolConfig`), which core does not know.

    `queue` is its admission. `bounded` says whether a request may have to wait there: because a backend has a
    `max_concurrency`, or for what admission knows. `learns`: whether anybody is told what became of requests.
    `elastic` says that somebody adds backends when requests wait: then they wait also while there is none.
    `awaited` counts, by tier of capacity, requests in line whose prompt fits no smaller one (the pipeline's).
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
        self.health = health
        self.retries = retries
        self.queue = queue
        self.backends: tuple[Backend, ...] = ()
        self.elastic = False
        self.awaited: dict[str, int] = {}
        self.set_routing(routing)

    def set_routing(self, routing: RoutingPolicy) -> None:
        """Choose, or admit, differently from now on. A policy that says `learns = False` is not told what became of
        requests."""
        self.routing = routing
        self._admission_watches: bool = getattr(self.queue, "watches", False)
        self.learns = getattr(routing, "learns", True) or self._admission_watches
        self._set_bounded()

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        """The life of a request that was sent."""
        self.routing.observe(moment, backend, request, now)
        if self._admission_watches:
            self.queue.observe(moment, backend, request, now)

    def set_members(self, backends: Sequence[Backend], now: float) -> None:
        """Swap the membership (the registrar's call). Leavers drain; the routing policy forgets them."""
        kept = set(backends)
        for backend in self.backends:
            if backend not in kept:
                self.routing.forget(backend)
                if self._admission_watches:
                    self.queue.forget(backend)
        self.backends = tuple(backends)
        self._set_bounded()
        self.health.set_members(self.backends, now)

    def _set_bounded(self) -> None:
        limited = any(backend.spec.max_concurrency is not None for backend in self.backends)
        self.bounded = limited or getattr(self.queue, "holds", False)
