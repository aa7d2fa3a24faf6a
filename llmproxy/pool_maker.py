"""Builds pools from their settings, and gives those there are new ones: which policies stand behind each."""

import random
from collections.abc import Callable

from llmproxy.config.model import PoolConfig
from llmproxy.core.backend import Backend, Status
from llmproxy.core.pool import Pool
from llmproxy.pipeline.room import Turn
from llmproxy.pipeline.snapshot import ServingPool
from llmproxy.policy.admission.admission import Admission
from llmproxy.policy.health.registry import Health
from llmproxy.policy.retry.budget import Budget
from llmproxy.policy.routing.registry import build as build_policy
from llmproxy.scaling_parts import terms_of
from llmproxy.settings import admission_options, health_settings

OnStatus = Callable[[Backend, Status, Status, str], None]


class PoolMaker:
    """`on_status(pool)` gives who hears of its backends' changes. `health` is each pool's, by name."""

    def __init__(self, rng: random.Random, on_status: Callable[[str], OnStatus]) -> None:
        self._rng = rng
        self._on_status = on_status
        self._budgets: dict[str, Budget] = {}
        self.health: dict[str, Health] = {}

    def check(self, settings: PoolConfig) -> None:
        """Raises for what no pool can be built from, and changes nothing."""
        build_policy(settings.policy.name, settings.policy.options, self._rng)
        if settings.scaling is not None:
            terms_of(settings.scaling)

    def make(self, name: str, settings: PoolConfig) -> ServingPool:
        """A new pool, without backends."""
        health = self.health[name] = Health(health_settings(settings), self._rng, on_change=self._on_status(name))
        budget = self._budgets[name] = Budget(settings.retry.budget, settings.retry.budget_floor)
        routing = build_policy(settings.policy.name, settings.policy.options, self._rng)
        return Pool(
            name=name,
            settings=settings,
            routing=routing,
            health=health,
            retries=budget,
            queue=Admission[Turn](admission_options(settings), routing),
        )

    def renew(self, pool: ServingPool, settings: PoolConfig, now: float) -> None:
        """Give a pool other settings; what they do not change keeps what it learned."""
        routing = pool.routing
        if pool.settings.policy != settings.policy:
            routing = build_policy(settings.policy.name, settings.policy.options, self._rng)
        pool.queue.configure(admission_options(settings), routing)
        pool.set_routing(routing)
        pool.settings = settings
        self.health[pool.name].configure(health_settings(settings), now)
        self._budgets[pool.name].configure(settings.retry.budget, settings.retry.budget_floor)

    def forget(self, name: str) -> None:
        """A pool is no more."""
        del self.health[name], self._budgets[name]
