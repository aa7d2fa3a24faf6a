"""Which models the backends serve: asked of the engines themselves, for `/v1/models` and for metric labels.

Needed only while the configuration names no models. What a backend last said stays known while it is a member, so
an engine that restarts does not make its models disappear.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

import aiohttp

from llmproxy.config.model import PoolConfig
from llmproxy.control.model_list import NoModelList, models_of
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.core.backend import Backend, Status
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool

LOOK_EVERY_S = 1.0
ASK_AGAIN_S = 60.0
RETRY_S = 5.0
TIMEOUT_S = 5.0

_log = logging.getLogger("llmproxy.control.catalog")


class Catalog:
    """`names()` is the union of what the members of `pools()` serve. `on_names` hears of every name."""

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool[PoolConfig]]],
        *,
        resolver: Resolver,
        clock: Clock,
        on_names: Callable[[Iterable[str]], None],
    ) -> None:
        self._pools = pools
        self._resolver = resolver
        self._clock = clock
        self._on_names = on_names
        self._served: dict[Backend, tuple[str, ...]] = {}
        self._due: dict[Backend, float] = {}
        self._task: asyncio.Task[None] | None = None

    def names(self) -> list[str]:
        """Every model some backend serves, sorted."""
        return sorted({name for names in self._served.values() for name in names})

    def served(self, backend: Backend) -> tuple[str, ...]:
        """Every name that `backend` answers to, LoRA adapters among them; none when it never said."""
        return self._served.get(backend, ())

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="model catalog")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        async with ProbeClient(self._resolver) as client:
            while True:
                await self._look(client)
                await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, client: ProbeClient) -> None:
        now = self._clock()
        members = {backend: pool for pool in self._pools().values() for backend in pool.backends}
        for backend in self._served.keys() - members.keys():
            del self._served[backend]
        for backend in self._due.keys() - members.keys():
            del self._due[backend]
        asked = [
            self._ask(client, backend, pool.settings.upstream_key)
            for backend, pool in members.items()
            if backend.status is Status.HEALTHY and self._due.get(backend, 0.0) <= now
        ]
        await asyncio.gather(*asked)

    async def _ask(self, client: ProbeClient, backend: Backend, key: str) -> None:
        self._due[backend] = self._clock() + RETRY_S
        try:
            found = await models_of(client, backend.spec, key, TIMEOUT_S)
        except (NoModelList, aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.debug("asking %s for its models failed: %s", backend.id, error)
            return
        self._served[backend] = found
        self._due[backend] = self._clock() + ASK_AGAIN_S
        self._on_names(found)
