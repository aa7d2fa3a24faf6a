"""Health by progress: engines that hang although their /health is fine (`policy/health/progress.py` says which are).

A backend found hung is taken out at once, like one whose probes fail. Back in it comes when its counters or any answer
of ours move, or when it generates a token for us: it is asked for one right away, in case it only seemed to hang, and
then ever less often.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp

from llmproxy.config.model import PoolConfig
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.tasks import end_tasks
from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool
from llmproxy.policy.health.progress import Progress, Work

PROBE_PATH: Final = "/v1/completions"
PROBE_TIMEOUT_S: Final = 10.0
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 60.0

OnHung = Callable[[Pool[PoolConfig], Backend], None]
"""Told once a backend was found hung and taken out: what waits there may be tried elsewhere."""

_log = logging.getLogger("llmproxy.control.progress")


class ProgressWatch:
    """`read` after each reading of a backend's gauges; `sync` after membership changed. `work` says what we wait for
    there."""

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool[PoolConfig]]],
        work: Callable[[Backend], Work],
        *,
        resolver: Resolver,
        clock: Clock,
        on_hung: OnHung | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.hangs: dict[tuple[str, ...], int] = {}
        """How often each backend was found hung, by pool and backend."""
        self._pools = pools
        self._work = work
        self._clock = clock
        self._on_hung = on_hung
        self._sleep = sleep
        self._client = ProbeClient(resolver)
        self._progress: dict[Backend, Progress] = {}
        self._probes: dict[Backend, asyncio.Task[None]] = {}

    async def start(self) -> None:
        await self._client.__aenter__()

    async def stop(self) -> None:
        tasks = list(self._probes.values())
        self._probes.clear()
        self._progress.clear()
        await end_tasks(*tasks)
        await self._client.__aexit__(None, None, None)

    def sync(self) -> None:
        """Forget who left."""
        members = {backend: pool for pool in self._pools().values() for backend in pool.backends}
        for backend in self._progress.keys() - members.keys():
            del self._progress[backend]
            self._end_probe(backend)
        names = {(pool.name, backend.id) for backend, pool in members.items()}
        self.hangs = {key: count for key, count in self.hangs.items() if key in names}

    def read(self, pool: Pool[PoolConfig], backend: Backend) -> None:
        """The backend's gauges are new."""
        gauges = backend.known(self._clock())
        if gauges is None:
            return
        progress = self._progress.setdefault(backend, Progress())
        was_hung = progress.hung
        stalled_after_s = pool.settings.progress.stalled_after
        if progress.look(gauges, self._work(backend), stalled_after_s) and not was_hung:
            self._found_hung(pool, backend, stalled_after_s)
        elif was_hung and not progress.hung:
            self._recovered(pool, backend, "it moves again")

    def _found_hung(self, pool: Pool[PoolConfig], backend: Backend, stalled_after_s: float) -> None:
        key = pool.name, backend.id
        self.hangs[key] = self.hangs.get(key, 0) + 1
        text = "pool %s: backend %s hangs: it has work, and for more than %g s no token of it has come"
        _log.warning(text, pool.name, backend.id, stalled_after_s)
        pool.health.hung(backend, True, self._clock())
        self._probes[backend] = asyncio.create_task(self._probe(pool, backend), name=f"token from {backend.id}")
        if self._on_hung is not None:
            self._on_hung(pool, backend)

    def _recovered(self, pool: Pool[PoolConfig], backend: Backend, why: str) -> None:
        _log.info("pool %s: backend %s does not hang any more: %s", pool.name, backend.id, why)
        self._end_probe(backend)
        pool.health.hung(backend, False, self._clock())

    def _end_probe(self, backend: Backend) -> None:
        task = self._probes.pop(backend, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _probe(self, pool: Pool[PoolConfig], backend: Backend) -> None:
        """Ask for a token until there is one."""
        pause_s = FIRST_PAUSE_S
        while True:
            status = await self._ask_for_a_token(pool, backend)
            progress = self._progress.get(backend)
            if progress is None or not progress.hung:
                return
            if status == 200 or (400 <= status < 500 and self._is_idle(backend)):
                # One that cannot be asked this way (it makes embeddings) has to be believed when it says it is done.
                progress.moved(self._clock())
                self._recovered(pool, backend, "it generated a token" if status == 200 else "it has no work left")
                return
            await self._sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _ask_for_a_token(self, pool: Pool[PoolConfig], backend: Backend) -> int:
        """The status of its answer; 0 when there was none."""
        gauges = backend.gauges
        body: dict[str, object] = {"prompt": "1", "max_tokens": 1}
        if gauges is not None and gauges.models:
            body["model"] = gauges.models[0]
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await self._client.get(backend.spec, pool.settings.upstream_key, PROBE_PATH, _Whole(), body=body)
        except (aiohttp.ClientError, OSError, ValueError):
            return 0

    def _is_idle(self, backend: Backend) -> bool:
        gauges = backend.known(self._clock())
        return gauges is not None and gauges.running == 0 and not gauges.waiting


class _Whole:
    """Reads an answer to its end, which is when it is one."""

    def feed(self, data: bytes) -> bool:
        return False
