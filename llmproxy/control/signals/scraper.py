"""The scraper: the one writer of `Backend.gauges`.

One task a backend, on its own schedule: a read each `interval`, jittered by 10 % either way so that proxies and
backends do not go in step, the sources of a backend at the same time, each for at most `timeout`. A source that has had
nothing to say more than `PATIENCE` times in a row is asked half as often each time, down to once in `RARELY_S`.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from llmproxy.config.model import PoolConfig
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.signals.merge import merge
from llmproxy.control.signals.nvml_thread import Nvml
from llmproxy.control.signals.registry import all_sources, sources_of
from llmproxy.control.signals.source import Means, Source, SourceError, SourceType
from llmproxy.control.tasks import end_tasks
from llmproxy.core.backend import Backend, Gauges, Status
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool

JITTER: Final = 0.1
KEEP_S: Final = 4.0
"""How long a connection to a backend is kept between two reads; vLLM closes idle ones at 5 s."""
PATIENCE: Final = 3
RARELY_S: Final = 60.0

OnRead = Callable[[Pool[PoolConfig], Backend], None]
"""Told after a backend's gauges were replaced by newer ones."""

_log = logging.getLogger("llmproxy.control.signals")


def delay_s(interval_s: float, took_s: float, rng: random.Random) -> float:
    """Seconds to wait for the next read, after one that took so long."""
    return max(interval_s * (1 - JITTER + 2 * JITTER * rng.random()) - took_s, 0.0)


@dataclass(slots=True, eq=False)
class _Reader:
    """One source of one backend, and how it went."""

    name: str
    source: Source
    is_optional: bool
    last: Gauges | None = None
    absent: int = 0
    """How often in a row it had nothing to say."""
    skips: int = 0
    """Rounds in which it is not asked."""
    told: bool = False
    """That it fails is in the log."""


@dataclass(slots=True, eq=False)
class _Watch:
    """One backend's readers and the task that asks them. `terms` is what they were made from."""

    pool: Pool[PoolConfig]
    terms: tuple[Any, ...]
    readers: tuple[_Reader, ...]
    task: "asyncio.Task[None] | None" = None


class Scraper:
    """Reads the gauges of every member of `pools()`. Call `sync` after membership or settings changed.

    `names(backend)` gives the names that a backend is known to answer to from elsewhere (`/v1/models`).
    """

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool[PoolConfig]]],
        *,
        resolver: Resolver,
        clock: Clock,
        rng: random.Random,
        names: Callable[[Backend], tuple[str, ...]] = lambda backend: (),
        on_read: OnRead | None = None,
        nvml: Nvml | None = None,
        kinds: Mapping[str, SourceType] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        """Reads by pool, backend, source and result (`ok`, `timeout`, `failed`)."""
        self._pools = pools
        self._clock = clock
        self._rng = rng
        self._names = names
        self._on_read = on_read
        self._kinds = kinds
        self._sleep = sleep
        self._means = Means(ProbeClient(resolver, keep_s=KEEP_S), nvml or Nvml(clock))
        self._watches: dict[Backend, _Watch] = {}
        self._running = False

    async def start(self) -> None:
        """Begin reading."""
        if self._kinds is None:
            self._kinds = all_sources()
        await self._means.http.__aenter__()
        self._running = True
        self.sync()

    async def stop(self) -> None:
        """End reading; nobody's gauges change any more."""
        self._running = False
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        self._watches.clear()
        await end_tasks(*tasks)
        await self._means.http.__aexit__(None, None, None)
        self._means.nvml.close()

    def sync(self) -> None:
        """Begin with newcomers, end with leavers, and begin anew with those whose settings changed."""
        if not self._running:
            return
        self._means.http.forget_authorities()
        members = {backend: pool for pool in self._pools().values() for backend in pool.backends}
        for backend, watch in list(self._watches.items()):
            pool = members.get(backend)
            if pool is None or watch.terms != _terms(backend, pool):
                del self._watches[backend]
                if watch.task is not None:
                    watch.task.cancel()
            if pool is None:
                self._forget(watch.pool, backend)
        for backend, pool in members.items():
            if backend not in self._watches and pool.settings.signals.interval:
                self._watches[backend] = self._watch(backend, pool)

    def _forget(self, pool: Pool[PoolConfig], backend: Backend) -> None:
        for key in [key for key in self.counts if key[:2] == (pool.name, backend.id)]:
            del self.counts[key]

    def _watch(self, backend: Backend, pool: Pool[PoolConfig]) -> _Watch:
        assert self._kinds is not None
        readers = tuple(
            _Reader(name, source, self._kinds[name].is_optional)
            for name, source in sources_of(self._kinds, backend, pool.settings, self._means).items()
        )
        watch = _Watch(pool, _terms(backend, pool), readers)
        watch.task = asyncio.create_task(self._run(backend, watch), name=f"read gauges of {backend.id}")
        return watch

    async def _run(self, backend: Backend, watch: _Watch) -> None:
        interval_s = watch.pool.settings.signals.interval
        while True:
            began = self._clock()
            try:
                await self._look(backend, watch)
            except Exception:
                _log.exception("reading the gauges of %s failed; trying again", backend.id)
            await self._sleep(delay_s(interval_s, self._clock() - began, self._rng))

    async def _look(self, backend: Backend, watch: _Watch) -> None:
        """Ask everyone who is due, and make of the answers what is known."""
        due = [reader for reader in watch.readers if not reader.skips]
        for reader in watch.readers:
            reader.skips = max(reader.skips - 1, 0)
        answers = await asyncio.gather(*(self._ask(backend, watch.pool, reader) for reader in due))
        if not any(answers):
            return
        readings = [reader.last for reader in watch.readers if reader.last is not None]
        gauges = merge(readings, backend.gauges, self._clock(), watch.pool.settings.signals.max_age)
        if gauges is None:
            return
        names = self._names(backend)
        backend.gauges = replace(gauges, models=names) if names else gauges
        if self._on_read is not None:
            self._on_read(watch.pool, backend)

    async def _ask(self, backend: Backend, pool: Pool[PoolConfig], reader: _Reader) -> bool:
        """Whether there is a new reading."""
        signals = pool.settings.signals
        result = "failed"
        absent = reported = False
        try:
            async with asyncio.timeout(signals.timeout):
                reader.last = await reader.source.read(self._clock())
        except TimeoutError:
            result, reason = "timeout", f"no answer within {signals.timeout:g} s"
        except SourceError as error:
            reason, absent, reported = str(error), error.absent, error.reported
        except Exception as error:  # a connection's, or a fault in the source: neither is anyone else's business
            reason = str(error) or type(error).__name__
        else:
            result = "ok"
        self.counts[pool.name, backend.id, reader.name, result] += 1
        if result == "ok":
            self._well(backend, pool, reader)
            return True
        reader.absent = reader.absent + 1 if absent else 0
        if reader.absent > PATIENCE:
            # The exponent is bounded so that 2 to the power of it stays small.
            reader.skips = min(2 ** min(reader.absent - PATIENCE, 20) - 1, int(RARELY_S / signals.interval))
        if not reported:
            self._say(backend, pool, reader, reason)
        return False

    def _well(self, backend: Backend, pool: Pool[PoolConfig], reader: _Reader) -> None:
        reader.absent = 0
        if reader.told:
            reader.told = False
            _log.info("pool %s: backend %s: %s gauges can be read again", pool.name, backend.id, reader.name)

    def _say(self, backend: Backend, pool: Pool[PoolConfig], reader: _Reader, reason: str) -> None:
        """Once, when there is nothing that counts any more. That an engine does not answer at all, the prober says."""
        last = reader.last
        still_counts = last is not None and self._clock() - last.at <= pool.settings.signals.max_age
        if reader.told or still_counts or (reader.is_optional and backend.status is not Status.HEALTHY):
            return
        reader.told = True
        level = logging.INFO if reader.is_optional else logging.WARNING
        text = "pool %s: backend %s: no %s gauges (%s); traffic goes on without them"
        _log.log(level, text, pool.name, backend.id, reader.name, reason)


def _terms(backend: Backend, pool: Pool[PoolConfig]) -> tuple[Any, ...]:
    settings = pool.settings
    return pool, backend.spec.gpu, settings.signals, settings.upstream_key
