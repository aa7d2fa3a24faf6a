"""Active health: asks every member of a pool how it is, forever, and tells the health registry what it saw.

How often, each time jittered by 10 % either way so that backends and proxies do not probe in step:

* new or loading: every `min(interval, 1 s)`, so that an engine gets work as soon as it has loaded;
* unhealthy or asleep: every `min(interval, 2 s)`, so that a recovery is seen soon;
* everyone else, drained ones too: every `interval`. A healthy backend's failing probe is not hurried either: it may
  merely be slow under load, and dead ones are found by passive health, within five requests.

A backend's first probe is sent at once. One task a backend; a slow one delays nobody else's probe.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from llmproxy.config.model import PoolConfig
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.sleep_state import SleepCheck
from llmproxy.control.tasks import end_tasks
from llmproxy.core.backend import Backend, Status
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool
from llmproxy.core.ports import ProbeResult

JITTER = 0.1
_HURRY_S = {Status.NEW: 1.0, Status.LOADING: 1.0, Status.UNHEALTHY: 2.0, Status.SLEEPING: 2.0}

OnResult = Callable[[Backend, ProbeResult, float], None]
"""Told of every probe after the registry was: the backend, what was seen, how long it took in seconds."""

_log = logging.getLogger("llmproxy.control.prober")


def delay_s(interval_s: float, status: Status, rng: random.Random) -> float:
    """Seconds until the next probe of a backend that now has `status`."""
    return min(interval_s, _HURRY_S.get(status, interval_s)) * (1 - JITTER + 2 * JITTER * rng.random())


class Prober:
    """Probes the members of one pool. Call `sync` after membership or the pool's settings changed."""

    def __init__(
        self,
        pool: Pool[PoolConfig],
        *,
        resolver: Resolver,
        clock: Clock,
        rng: random.Random,
        on_result: OnResult | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._rng = rng
        self._on_result = on_result
        self._sleep = sleep
        self._client = ProbeClient(resolver)
        self._running = False
        self._health = pool.settings.health
        self._tasks: dict[Backend, asyncio.Task[None]] = {}
        self._looked: dict[Backend, asyncio.Event] = {}

    async def start(self) -> None:
        """Start probing; no more than `sync` when it does so already."""
        if not self._running:
            await self._client.__aenter__()
            self._running = True
        self.sync()

    async def stop(self) -> None:
        """Stop probing; no result is reported any more once this was called."""
        self._running = False
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._looked.clear()
        await end_tasks(*tasks)
        await self._client.__aexit__(None, None, None)

    def sync(self) -> None:
        """Start probing newcomers, at once; stop probing leavers. Changed health settings begin everyone anew."""
        if not self._running:
            return
        self._client.forget_authorities()
        anew = self._pool.settings.health != self._health
        self._health = self._pool.settings.health
        members = self._pool.backends
        for backend in [backend for backend in self._tasks if anew or backend not in members]:
            self._tasks.pop(backend).cancel()
            self._looked.pop(backend).set()
        for backend in members:
            if backend not in self._tasks:
                looked = self._looked[backend] = asyncio.Event()
                self._tasks[backend] = asyncio.create_task(self._watch(backend, looked), name=f"probe {backend.id}")

    async def first_looks(self) -> None:
        """Until each of those who are members now was probed once, or left."""
        for looked in list(self._looked.values()):
            await looked.wait()

    async def _watch(self, backend: Backend, looked: asyncio.Event) -> None:
        sleep_check = SleepCheck(self._clock)
        while True:
            try:
                await self._probe(backend, sleep_check)
            except Exception:
                _log.exception("probing %s failed; trying again", backend.id)
            looked.set()
            await self._sleep(delay_s(self._health.interval, backend.status, self._rng))

    async def _probe(self, backend: Backend, sleep_check: SleepCheck) -> None:
        started = self._clock()
        gauges = backend.known(started)
        gauge = gauges.sleeping if gauges is not None else None
        sight = await self._client.look(backend.spec, self._pool.settings, sleep_check, gauge=gauge)
        if backend not in self._pool.backends:
            return
        now = self._clock()
        self._pool.health.probed(backend, sight.result, now, sight.reason)
        if self._on_result is not None:
            self._on_result(backend, sight.result, now - started)
