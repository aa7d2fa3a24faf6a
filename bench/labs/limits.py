"""Limits counted in Redis: what a decision costs, that several proxies are exact together, and that a Redis which is
frozen or dead holds nobody up.

The stores run in this process, against a redis-server of its own; what a whole proxy adds to a request is measured by
the benchmarks. CPU is this process's alone: Redis has its own.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.labs.base import Finding, Lab, ms, no_more_than, percentile
from bench.labs.redis_server import RedisServer
from bench.labs.stage import Stage, until
from llmproxy.core.identity import Identity
from llmproxy.core.limits import LimitStore, Quota, Tier
from llmproxy.core.redis_url import parse_redis_url
from llmproxy.core.step import Steps
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.stores.memory import MemoryStore
from llmproxy.stores.redis import RedisStore

_RATE = 2000
_PACED_S = 3.0
_CROWD = 20
_TURN = 4
_TURNS = 1000
_PROXIES = 4
_LIMIT_A_MINUTE = 6000
_BURST = 100
_TOGETHER = 10
_HAMMER_S = 3.0
_QUOTA = Quota(requests_per_minute=10**7, tokens_per_minute=10**9, concurrency=10**6)


@asynccontextmanager
async def _store(port: int, name: str, timeout_s: float = 0.025) -> AsyncIterator[RedisStore]:
    url = parse_redis_url(f"redis://127.0.0.1:{port}")
    store = RedisStore(url, name=name, rng=random.Random(1), timeout_s=timeout_s)
    await store.start(5.0)
    try:
        yield store
    finally:
        await store.close()


def _limiter(store: LimitStore, quota: Quota) -> Limiter:
    return Limiter(store, {"t": Tier("t", quota)}, name="lab", unix_offset_s=time.time() - time.monotonic())


class Asked:
    """One request through the limiter as the pipeline does it: admitted, settled, released."""

    def __init__(self, limiter: Limiter, tenant: str, on_end: Callable[["Asked"], None]) -> None:
        self.took_s = 0.0
        self.ok = False
        self._limiter = limiter
        self._identity = Identity(tenant, "t", "k")
        self._on_end = on_end

    def begin(self) -> None:
        Steps(self._story(), self._ended).resume()

    async def _story(self) -> None:
        begun = time.perf_counter()
        now = time.monotonic()
        limiter = self._limiter
        charge = limiter.admit(self._identity, "m", now, prompt_bytes=2000, max_tokens=200)
        if charge.pending is not None:
            await charge.answer()
        self.took_s = time.perf_counter() - begun
        self.ok = charge.ok
        charge.settle(500, 100)
        charge.close(limiter.unix_ms(now))

    def _ended(self, error: BaseException | None) -> None:
        if error is not None:
            raise error
        self._on_end(self)


async def _paced(limiter: Limiter, seconds: float) -> list[float]:
    """`_RATE` requests a second: how long each decision took, in seconds."""
    loop, count = asyncio.get_running_loop(), round(_RATE * seconds)
    done: list[float] = []
    begun, sent = loop.time(), 0
    while sent < count:
        due = (loop.time() - begun) * _RATE
        if due - sent > _CROWD:
            # This process was kept from running: a crowd at once is not what is measured here.
            begun += (due - sent) / _RATE
        for _ in range(min(_CROWD, int(due) - sent, count - sent)):
            Asked(limiter, f"tenant-{sent % 50}", lambda one: done.append(one.took_s)).begin()
            sent += 1
        await asyncio.sleep(0.0005)
    await until(lambda: len(done) == count, "all decisions")
    return done


async def _cpu(limiter: Limiter) -> float:
    """CPU of a request in seconds, when `_TURN` of them arrive in the same turn of the event loop."""
    begun = time.process_time()
    for _ in range(_TURNS):
        left, over = [None] * _TURN, asyncio.Event()

        def ended(_: Asked, left: list[None] = left, over: asyncio.Event = over) -> None:
            left.pop()
            if not left:
                over.set()

        for number in range(_TURN):
            Asked(limiter, f"tenant-{number}", ended).begin()
        await over.wait()
    return (time.process_time() - begun) / (_TURN * _TURNS)


async def _longest(limiter: Limiter, during: Callable[[], bool]) -> float:
    """One request after the other while `during` holds: the longest decision in seconds."""
    longest = 0.0
    while during():
        ended = asyncio.Event()
        one = Asked(limiter, "one", lambda _, ended=ended: ended.set())  # type: ignore[misc]
        one.begin()
        await ended.wait()
        longest = max(longest, one.took_s)
        await asyncio.sleep(0.002)
    return longest


async def _trouble(store: RedisStore, limiter: Limiter, begin: Callable[[], None]) -> float:
    """The longest decision from `begin` on, until a while after the link was given up."""
    begin()
    ends_at = time.monotonic() + 0.5
    return await _longest(limiter, lambda: time.monotonic() < ends_at or store.connected)


async def _back(store: RedisStore) -> float:
    begun = time.monotonic()
    await until(lambda: store.connected, "a link to Redis")
    return time.monotonic() - begun


async def _exact(port: int) -> float:
    """Several proxies, hammering one limit as fast as they can: how far what passed is beyond burst + rate * t. With a
    patience that a busy machine does not exhaust: this is about what Redis decides."""
    quota = Quota(requests_per_minute=_LIMIT_A_MINUTE, requests_burst=_BURST)
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(_store(port, f"x{number}", 1.0)) for number in range(_PROXIES)]
        limiters = [_limiter(store, quota) for store in stores]
        passed, began = 0, time.monotonic()
        while time.monotonic() - began < _HAMMER_S:
            answers: list[Asked] = []
            for limiter in limiters * _TOGETHER:
                Asked(limiter, "shared", answers.append).begin()
            while len(answers) < _PROXIES * _TOGETHER:
                await asyncio.sleep(0.0005)
            passed += sum(one.ok for one in answers)
        return passed - (_BURST + _LIMIT_A_MINUTE / 60 * (time.monotonic() - began))


async def run(stage: Stage) -> list[Finding]:
    with TemporaryDirectory(prefix="lab-redis-") as folder:
        async with RedisServer(Path(folder)) as redis:
            async with _store(redis.port, "lab") as store:
                limiter = _limiter(store, _QUOTA)
                await _paced(limiter, 0.5)
                took_s = await _paced(limiter, _PACED_S)
                cpu_s = await _cpu(limiter)
                here_s = await _cpu(_limiter(MemoryStore(), _QUOTA))
                frozen_s = await _trouble(store, limiter, redis.freeze)
                redis.resume()
                thawed_s = await _back(store)
                redis.process.kill()
                killed_s = await _trouble(store, limiter, lambda: None)
                await redis.kill()
                await redis.start()
                restarted_s = await _back(store)
            excess = await _exact(redis.port)
    return [
        no_more_than(f"a decision at {_RATE}/s, p50", ms(percentile(took_s, 50)), 0.3, "ms"),
        no_more_than(f"a decision at {_RATE}/s, p99", ms(percentile(took_s, 99)), 25, "ms"),
        no_more_than(f"CPU of a request, {_TURN} in a turn", cpu_s * 1e6, 60, "us"),
        no_more_than("of which without Redis", here_s * 1e6, 35, "us"),
        no_more_than("longest decision while Redis is frozen", ms(frozen_s), 50, "ms"),
        no_more_than("longest decision when Redis is killed", ms(killed_s), 50, "ms"),
        no_more_than("used again after it was frozen", thawed_s, 2, "s"),
        no_more_than("used again after it was started anew", restarted_s, 2, "s"),
        no_more_than(f"passed beyond burst + rate * t by {_PROXIES} proxies", excess, 1),
    ]


LAB = Lab("limits", "Limits in a Redis that is busy, frozen and killed", run, limit_s=60.0)
