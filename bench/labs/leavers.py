"""10,000 clients leave: in the queue, while their prompt is computed, in the middle of their answers. Afterwards every
gauge, lease and queue is back where it was, and the bucket of tokens lacks what was computed and nothing else.

Limits are counted in a Redis, which is asked itself what it still holds.
"""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis.asyncio

from bench.labs.base import Finding, Lab, no_less_than, no_more_than
from bench.labs.client import Client
from bench.labs.processes import Proxy
from bench.labs.redis_server import RedisServer
from bench.labs.stage import Stage, metric, until

_LEAVERS = 10_000
_TOGETHER = 200
_PLACES = 60
_BURST = 10**9
_SECTIONS: dict[str, Any] = {
    "keys": [{"name": "dev", "tier": "lab", "value": "sk-lab"}],
    "tiers": {"lab": {"tokens_per_minute": 1, "burst": {"tokens": _BURST}, "concurrency": 100_000}},
}
_GAUGES = ("llmproxy_in_flight", "llmproxy_queue_waiting", "llmproxy_buffered_body_bytes")


async def _leaver(port: int, number: int) -> None:
    client = await Client.open(port)
    answer = client.chat(500, key="sk-lab", id=f"leaver-{number}")
    if number % 3 == 0:
        await asyncio.sleep((number % 100) / 500)
    elif number % 3 == 1:
        # Whoever is in the queue leaves there, after a while.
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await answer.begun.wait()
    client.leave(reset=bool(number % 2))


def _client(server: RedisServer) -> Any:
    return redis.asyncio.Redis(port=server.port)


async def _page(admin: Client) -> bytes:
    return await admin.get("/metrics")


async def _at_rest(stage: Stage, proxy: Proxy, admin: Client, store: Any) -> None:
    async def at_rest() -> bool:
        page = await _page(admin)
        tenants = json.loads(await admin.get("/admin/tenants"))["tenants"]
        return (
            not any(metric(page, name) for name in _GAUGES)
            and metric(page, "llmproxy_connections", side="downstream") == 0
            and tenants["dev"]["in_flight"] == 0
            and await store.zcard("{llmproxy}:t:dev:now") == 0
        )

    await until(at_rest, "a proxy at rest")


async def run(stage: Stage) -> list[Finding]:
    options = ["--ttft", "20", "--itl", "10"]
    engines = await stage.engines(options, options)
    with TemporaryDirectory(prefix="lab-redis-") as folder:
        async with RedisServer(Path(folder)) as server, _client(server) as store:
            limits = {"store": f"redis://127.0.0.1:{server.port}/0", "store_timeout": "1s"}
            config = stage.config(
                engines,
                each={"max_concurrency": _PLACES},
                pool={"queue": {"max": 1000, "tenant_max": 1000}},
                sections={**_SECTIONS, "limits": limits},
            )
            proxy = await stage.proxy(config)
            admin = await Client.open(proxy.admin_port)
            for start in range(0, _LEAVERS, _TOGETHER):
                await asyncio.gather(*(_leaver(proxy.port, start + number) for number in range(_TOGETHER)))
            await _at_rest(stage, proxy, admin, store)
            page = await _page(admin)
            usage = json.loads(await admin.get("/admin/tenants"))["tenants"]["dev"]
            used = usage["prompt_tokens"] + usage["completion_tokens"]
            # What was settled last is on its way to Redis for a few milliseconds.
            missing = 0
            for _ in range(100):
                missing = _BURST - int((await store.get("{llmproxy}:t:dev:tpm") or b"0").partition(b":")[0])
                if missing == used:
                    break
                await asyncio.sleep(0.02)
            places = await store.zcard("{llmproxy}:t:dev:now")
            admin.leave()
    return [
        no_less_than("came to the proxy", metric(page, "llmproxy_requests_total"), _LEAVERS * 0.9),
        no_less_than("of which were let pass before they left", usage["requests_passed"], _LEAVERS / 4),
        no_more_than("still held: gauges", sum(metric(page, name) for name in _GAUGES), 0),
        no_more_than("still held: places in Redis", places, 0),
        no_more_than("tokens missing beyond those used", abs(missing - used), 0),
        no_more_than("decided without Redis", metric(page, "llmproxy_limit_decisions_total", by="local"), 0),
    ]


LAB = Lab("leavers", f"{_LEAVERS:,} clients leave", run, limit_s=120.0)
