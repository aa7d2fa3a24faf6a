"""Limits put together from the configuration: the store, the limiter, and how asyncio's side asks it."""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from llmproxy.config.model import Config
from llmproxy.core.identity import Identity
from llmproxy.core.limits import LimitStore, Tier
from llmproxy.core.redis_url import parse_redis_url
from llmproxy.core.step import Signal, Steps
from llmproxy.limit_metrics import limit_readers
from llmproxy.policy.limits.charge import Price
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.stores.memory import MemoryStore
from llmproxy.telemetry.metrics import Metrics, Reading

T = TypeVar("T")
_METRICS: Final = (
    "llmproxy_limit_verdicts_total",
    "llmproxy_limit_decisions_total",
    "llmproxy_limit_store_links_total",
    "llmproxy_limit_store_up",
    "llmproxy_limit_proxies",
)


class Limiting:
    """The limits in force. `prepare` what a configuration says, and `commit` when all else of it could be put in force
    too; what did not change goes on as it is, with what is in its buckets. `limiter` is None where nobody can be told
    from anybody else."""

    def __init__(self, rng: random.Random, clock: Callable[[], float]) -> None:
        self._rng = rng
        self._clock = clock
        self._name = secrets.token_hex(6)
        self._settings: object = None
        self._next: tuple[object, Limiter | None] = (None, None)
        self.limiter: Limiter | None = None

    async def prepare(self, config: Config) -> Limiter | None:
        """The limiter for `config`. Raises ValueError when a package is missing."""
        await self._drop_next()
        settings = _settings_of(config)
        limiter = self.limiter
        if settings != self._settings:
            limiter = None
            if settings is not None:
                store = await open_store(config, name=self._name, rng=self._rng)
                limiter = make_limiter(config, store, name=self._name, unix_offset_s=time.time() - self._clock())
        self._next = (settings, limiter)
        return limiter

    async def commit(self, config: Config) -> None:
        """What was prepared last is in force."""
        before = self.limiter
        self._settings, self.limiter = self._next
        self._next = (None, None)
        if self.limiter is not None:
            self.limiter.configure(tiers_of(config), prices_of(config))
        if before is not None and before is not self.limiter:
            await before.store.close()

    async def stop(self) -> None:
        await self._drop_next()
        limiter, self.limiter, self._settings = self.limiter, None, None
        if limiter is not None:
            await limiter.store.close()

    # -- the admin's side ------------------------------------------------------------------------------------------

    def tenants(self) -> Mapping[str, Any]:
        """What each tenant used, as far as this process knows."""
        return {} if self.limiter is None else self.limiter.usage.view()

    async def tenant(self, config: Config, name: str, model: str | None) -> Mapping[str, Any] | None:
        """What one used and has left; None for one that nobody knows."""
        limiter = self.limiter
        identity = None if limiter is None else _identity_of(limiter, config, name)
        if limiter is None or identity is None:
            return None
        found = await outcome(limiter.standing(identity, model, self._clock()))
        override = found["override"]
        return {**found, "tier": identity.tier, "override": None if override is None else json.loads(override)}

    async def set_limits(self, name: str, values: Mapping[str, Any] | None) -> None:
        """Another quota for a tenant, or (None) its tier's again. Raises ValueError for what is no quota, and
        ConnectionError when the store is out of reach."""
        if self.limiter is None:
            raise ValueError("there are no keys and no auth.anonymous, so nobody is limited")
        await self.limiter.override(name, values)

    def tell(self, metrics: Metrics) -> None:
        """Let scrapes read whatever limiter is in force."""
        for name in _METRICS:
            metrics.read(name, self._reader(name))

    def _reader(self, name: str) -> Callable[[], Reading]:
        def read() -> Reading:
            limiter = self.limiter
            reader = None if limiter is None else limit_readers(limiter, limiter.store).get(name)
            return {} if reader is None else reader()

        return read

    async def _drop_next(self) -> None:
        (_, limiter), self._next = self._next, (None, None)
        if limiter is not None and limiter is not self.limiter:
            await limiter.store.close()


def _identity_of(limiter: Limiter, config: Config, name: str) -> Identity | None:
    """Somebody of that name: seen here, with a key in the configuration, or with an override."""
    usage = limiter.usage.get(name)
    tier = usage.tier if usage is not None else None
    if tier is None:
        tier = next((key.tier for key in config.keys if (key.tenant or key.name) == name), None)
    if tier is None and name in limiter.store.overrides():
        tier = ""
    return None if tier is None else Identity(name, tier, anonymous=name.startswith("ip:"))


def _settings_of(config: Config) -> object:
    """What makes a store another one; None when nothing is counted."""
    if not config.checks_keys and not config.auth.anonymous:
        return None
    return config.limits.model_copy(update={"prices": {}})


async def open_store(config: Config, *, name: str, rng: random.Random) -> LimitStore:
    """The store that the configuration names, connected where that is possible at once: a Redis that is out of reach
    stops nothing. `name` is this process's, and no other's. Raises ValueError when a package is missing."""
    limits = config.limits
    if limits.store == "memory":
        return MemoryStore()
    try:
        from llmproxy.stores.redis import RedisStore
        from llmproxy.stores.redis_alone import OnFailure
    except ImportError as error:
        raise ValueError(f"Redis needs a package more ({error.name}): pip install 'llmproxy-gateway[redis]'") from None
    store = RedisStore(
        parse_redis_url(limits.store),
        name=name,
        rng=rng,
        namespace=limits.namespace,
        timeout_s=limits.store_timeout,
        on_failure=OnFailure(limits.on_store_failure),
        lease_ttl_s=limits.lease_ttl,
    )
    try:
        await store.start()
    except BaseException:
        # Whoever asked is gone: nobody else would end its task.
        await store.close()
        raise
    return store


def make_limiter(config: Config, store: LimitStore, *, name: str, unix_offset_s: float) -> Limiter:
    """`unix_offset_s` is Unix time less monotonic time."""
    return Limiter(store, tiers_of(config), name=name, unix_offset_s=unix_offset_s, prices=prices_of(config))


def tiers_of(config: Config) -> Mapping[str, Tier]:
    """For `Limiter.configure` after a reload."""
    return {name: tier.tier(name) for name, tier in config.all_tiers.items()}


def prices_of(config: Config) -> Mapping[str, Price]:
    """The same. A price in money for a million tokens is one in millionths for each."""
    return {model: (price.prompt, price.completion) for model, price in config.limits.prices.items()}


async def outcome(story: Coroutine[Signal[Any], None, T]) -> T:
    """Run a coroutine of the pipeline's kind (it awaits signals) from asyncio's side, such as the admin API's."""
    found: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def told() -> None:
        value = await story
        if not found.done():
            found.set_result(value)

    def ended(error: BaseException | None) -> None:
        if error is not None and not found.done():
            found.set_exception(error)

    steps = Steps(told(), ended)
    steps.resume()
    try:
        return await found
    finally:
        steps.cancel()
