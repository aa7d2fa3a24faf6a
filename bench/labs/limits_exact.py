"""Four proxies on one Redis, asked for ten times what they may let pass together, for a minute: is it exact?

Requests come on schedule, in turns to each proxy. What a bucket passes is known to the last request: its burst, and
what its rate has refilled by Redis's own clock until it was charged last, less what is left in it then.
"""

import asyncio
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.labs.base import Finding, Lab, never, no_less_than, no_more_than
from bench.labs.client import Client
from bench.labs.processes import Proxy
from bench.labs.redis_server import RedisServer
from bench.labs.stage import Stage
from llmproxy.stores.redis_link import RedisLink

_PROXIES = 4
_A_MINUTE = 1500
_BURST = 50
_TIMES = 10
_SECONDS = 60.0
_CLIENTS = 8
"""For each proxy; one that is not answered yet when its turn comes is passed over."""
_KEY = "{llmproxy}:t:dev:rpm"


def _sections(port: int) -> dict[str, object]:
    return {
        "keys": [{"name": "dev", "tier": "counted", "value": "sk-dev"}],
        "tiers": {"counted": {"requests_per_minute": _A_MINUTE, "burst": {"requests": _BURST}}},
        # Patient: this is about what Redis decides, not about how busy the machine is.
        "limits": {"store": f"redis://127.0.0.1:{port}", "store_timeout": "1s"},
        "logging": {"access": "off"},
    }


async def _hammer(stage: Stage, proxies: list[Proxy], statuses: Counter[int]) -> None:
    """Ten times the rate, for `_SECONDS`."""
    idle = [await stage.clients(proxy.port, _CLIENTS) for proxy in proxies]
    asking: set[asyncio.Task[None]] = set()

    async def ask(proxy: Proxy, client: Client, clients: list[Client]) -> None:
        if not client.usable:
            # Idle for too long.
            client = await stage.client(proxy.port)
        answer = client.chat(1, stream=False, key="sk-dev")
        await answer.over.wait()
        statuses[answer.status] += 1
        clients.append(client)

    begun, turn, per_s = time.monotonic(), 0, _TIMES * _A_MINUTE / 60
    while (passed_s := time.monotonic() - begun) < _SECONDS:
        while turn < passed_s * per_s:
            proxy, clients = proxies[turn % _PROXIES], idle[turn % _PROXIES]
            turn += 1
            if clients:
                task = asyncio.create_task(ask(proxy, clients.pop(), clients))
                asking.add(task)
                task.add_done_callback(asking.discard)
        await asyncio.sleep(0.002)
    while asking:
        await asyncio.gather(*asking)


async def run(stage: Stage) -> list[Finding]:
    [engine] = await stage.engines(["--ttft", "1", "--itl", "1"])
    statuses: Counter[int] = Counter()
    with TemporaryDirectory(prefix="lab-redis-") as folder:
        async with RedisServer(Path(folder)) as redis:
            config = stage.config([engine], sections=_sections(redis.port))
            proxies = [await stage.proxy(config) for _ in range(_PROXIES)]
            loop = asyncio.get_running_loop()
            _, link = await loop.create_connection(RedisLink, "127.0.0.1", redis.port)
            try:
                seconds, micros = await link.ask("TIME")
                began_ms = int(seconds) * 1000 + int(micros) / 1000
                await _hammer(stage, proxies, statuses)
                level, _, last_ms = (int(part) for part in (await link.ask("GET", _KEY)).split(b":"))
            finally:
                link.abort()
    passed, asked = statuses[200], statuses.total()
    exact = _BURST + _A_MINUTE * (last_ms - began_ms) / 60_000
    others = [f"status {status}: {count}" for status, count in statuses.items() if status not in (200, 429)]
    return [
        no_less_than(f"asked for, of {_A_MINUTE} a minute", asked / (_SECONDS / 60), _TIMES * _A_MINUTE * 0.8, "/min"),
        no_more_than(f"passed ({passed}) beyond burst + rate * t", passed + level - exact, 1),
        no_more_than("short of it", exact - passed - level, 1),
        never("other answers", others),
    ]


LAB = Lab("limits-exact", f"{_PROXIES} proxies, one limit, {_SECONDS:g} s", run, limit_s=120.0, on_request=True)
