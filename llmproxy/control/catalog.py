"""Which models the backends serve: asked of the engines themselves, for `/v1/models` and for metric labels.

Needed only while the configuration names no models. A backend is asked as soon as it may be given work, for the first
time and again, and then now and then. What it last said stays known while it is a member, so an engine that restarts
does not make its models disappear.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping

import aiohttp

from llmproxy.config.model import PoolConfig
from llmproxy.control.model_list import NoModelList, models_of
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.tasks import end_tasks
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
        self._client = ProbeClient(resolver)
        self._clock = clock
        self._on_names = on_names
        self._served: dict[Backend, tuple[str, ...]] = {}
        self._due: dict[Backend, float] = {}
        self._asking: dict[Backend, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def names(self) -> list[str]:
        """Every model some backend serves, sorted."""
        return sorted({name for names in self._served.values() for name in names})

    def came_up(self, backend: Backend) -> None:
        """The backend may be given work now, and could not a moment ago: ask it at once, also when it was asked lately
        or has not answered yet."""
        self._due.pop(backend, None)
        asking = self._asking.pop(backend, None)
        if asking is not None:
            asking.cancel()
        self._wake.set()

    def forget_authorities(self) -> None:
        """Read CA files again: they may have been replaced."""
        self._client.forget_authorities()

    def served(self, backend: Backend) -> tuple[str, ...]:
        """Every name that `backend` answers to, LoRA adapters among them; none when it never said."""
        return self._served.get(backend, ())

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="model catalog")

    async def stop(self) -> None:
        task, self._task = self._task, None
        await end_tasks(task)

    async def _run(self) -> None:
        async with self._client:
            try:
                while True:
                    self._wake.clear()
                    self._look()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await self._wake.wait()
            finally:
                asking = list(self._asking.values())
                await end_tasks(*asking)

    def _look(self) -> None:
        """Ask everyone who is due, each in a task of its own: a slow one holds up nobody else."""
        now = self._clock()
        members = {backend: pool for pool in self._pools().values() for backend in pool.backends}
        for known in (self._served, self._due):
            for backend in known.keys() - members.keys():
                del known[backend]
        for backend, pool in members.items():
            due = backend not in self._asking and self._due.get(backend, 0.0) <= now
            if due and backend.status is Status.HEALTHY:
                self._due[backend] = now + RETRY_S
                ask = self._ask(backend, pool.settings.upstream_key)
                self._asking[backend] = asyncio.create_task(ask, name=f"models of {backend.id}")

    async def _ask(self, backend: Backend, key: str) -> None:
        try:
            found = await models_of(self._client, backend.spec, key, TIMEOUT_S)
        except (NoModelList, aiohttp.ClientError, OSError, ValueError) as error:
            _log.debug("asking %s for its models failed: %s", backend.id, error)
            return
        finally:
            if self._asking.get(backend) is asyncio.current_task():
                del self._asking[backend]
        self._served[backend] = found
        self._due[backend] = self._clock() + ASK_AGAIN_S
        self._on_names(found)
