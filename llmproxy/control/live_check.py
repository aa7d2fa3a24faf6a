"""One look at every backend of a configuration, for `llmproxy check --live`: health path, sleep, `/v1/models`.

It asks exactly as the prober does (same client, same timeout, same key), so what it sees is what a proxy with this
configuration would see. Nothing here keeps running.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import aiohttp

from llmproxy.config.backend import BackendConfig
from llmproxy.config.model import Config, PoolConfig
from llmproxy.control.members import specs
from llmproxy.control.model_list import NoModelList, models_of
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Lookup, Resolver
from llmproxy.control.sleep_state import SleepCheck
from llmproxy.core.backend import BackendSpec
from llmproxy.core.clock import Clock
from llmproxy.core.ports import ProbeResult

MODELS_TIMEOUT_S = 5.0
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Seen:
    """What one backend answered. `models` is None when it did not say; `remark` then has the reason."""

    pool: str
    spec: BackendSpec
    result: ProbeResult
    reason: str
    took_s: float
    models: tuple[str, ...] | None = None
    remark: str = ""

    @property
    def is_well(self) -> bool:
        """Whether the health path said 200 (a sleeping engine says it too)."""
        return self.result in (ProbeResult.OK, ProbeResult.SLEEPING)


async def look_at_all(config: Config, *, clock: Clock, rng: random.Random, lookup: Lookup | None = None) -> list[Seen]:
    """Every backend, asked concurrently; in the order of the file. Raises for nothing a backend does."""
    resolver = Resolver(clock=clock, rng=rng, lookup=lookup)
    room = asyncio.Semaphore(_AT_ONCE)
    try:
        async with ProbeClient(resolver) as client:

            async def look(name: str, pool: PoolConfig, backend: BackendConfig) -> list[Seen]:
                async with room:
                    members = await _members(name, pool, backend, resolver)
                    return [await _look(client, name, pool, member, clock) for member in members] or [
                        Seen(name, backend.spec(name), ProbeResult.FAILED, "the name has no address", 0.0)
                    ]

            looks = [look(name, pool, backend) for name, pool in config.pools.items() for backend in pool.backends]
            return [seen for found in await asyncio.gather(*looks) for seen in found]
    finally:
        await resolver.stop()


async def _members(name: str, pool: PoolConfig, backend: BackendConfig, resolver: Resolver) -> Sequence[BackendSpec]:
    """The backend itself, or with `resolve: true` each of its addresses."""
    if backend.resolve:
        spec = backend.spec(name)
        try:
            await resolver.lookup(spec.host, spec.port)
        except OSError:
            return ()
    return specs(name, pool.model_copy(update={"backends": (backend,)}), resolver.cached)


async def _look(client: ProbeClient, name: str, pool: PoolConfig, spec: BackendSpec, clock: Clock) -> Seen:
    began = clock()
    sight = await client.look(spec, pool, SleepCheck(clock))
    seen = Seen(name, spec, sight.result, sight.reason, clock() - began)
    if not seen.is_well:
        return seen
    try:
        return replace(seen, models=await models_of(client, spec, pool.upstream_key, MODELS_TIMEOUT_S))
    except NoModelList as error:
        return replace(seen, remark=f"/v1/models: {error}")
    except TimeoutError:
        return replace(seen, remark=f"/v1/models: no answer within {MODELS_TIMEOUT_S:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return replace(seen, remark=f"/v1/models: {error or type(error).__name__}")


def unserved(config: Config, seen: Sequence[Seen]) -> Iterator[tuple[str, str]]:
    """Models of the configuration that no backend of their pool lists, each with the name the backends would get."""
    for model, target in config.models.items():
        upstream = target.rewrite or model
        lists = [one.models for one in seen if one.pool == target.pool and one.models is not None]
        if lists and not any(upstream in models for models in lists):
            yield model, upstream
