"""What limits add to a request: real proxies without limits, with limits in memory and in Redis, side by side.

The benchmark's own upstream, load generator and pinning, each proxy in turns, so that what else the machine does hits
all of them. What is added is found in each round by itself; the median of the rounds is held against the bound. CPU is
that of the proxy's process, Redis runs where the load runs.

Twice: with 2,000 requests a second on schedule, and at full load. It is the compiled build that is judged, as in the
rest of the benchmark, and plain Python where that was not built (python -m bench.install).

Requests have no key that is checked here: all come from one address, which has limits of requests, of tokens and of
concurrency, so that each is asked for, settled and released. A tenant that asks so often is let pass out of what Redis
granted in advance; `limits-cost-each` has limits so narrow that each request has a round trip to Redis for itself, and
the waking up for its answer, which costs each machine something else.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.labs.base import Finding, Lab, no_more_than
from bench.labs.failure import LabFailed
from bench.labs.redis_server import RedisServer
from bench.labs.stage import Stage
from bench.loadgen import LoadFailed
from bench.machine import Cores, TooFewCores, choose_cores
from bench.measure import requests, rps
from bench.native import CompilerMissing, compile_programs
from bench.peers.base import Site, Start
from bench.peers.llmproxy import CompiledLlmproxy, Llmproxy
from bench.scale import Scale
from bench.session import PeerFailed, Values, interleave, open_session

_SCALE = Scale(requests_rounds=15, requests_s=2.0, rps_rounds=10, rps_s=1.0)
"""Rounds differ by more than what is looked for (some 35 us where cores sleep in between), so there are many. Not
shorter ones: after each pause a tenant's requests are asked for one by one at first."""
_LIMITS = """\
auth: {{anonymous: lab}}
tiers: {{lab: {{requests_per_minute: 1G, tokens_per_minute: 1G, concurrency: 1M{burst}}}}}
limits: {{store: "{store}"}}
"""
_NARROW = ", burst: {requests: 500}"
"""Of which nothing is granted in advance. It is full again within a millisecond."""
_CPU_BOUND_US = 25
_LATENCY_BOUND_MS = 0.3


def _limited(kind: type[Llmproxy], name: str, store: str, burst: str) -> Llmproxy:
    """The peer `kind` with limits in `store`; without, when that is empty."""

    class Limited(kind):  # type: ignore[misc, valid-type]
        def prepare(self, site: Site) -> Start:
            start: Start = super().prepare(site)
            config = site.room / "llmproxy.yaml"
            if store:
                config.write_text(config.read_text() + _LIMITS.format(store=store, burst=burst))
            return start

    peer: Llmproxy = Limited()
    peer.name = name
    return peer


Found = dict[str, list[Values]]
"""By store, what each round found."""


def _measure(kind: type[Llmproxy], cores: Cores, redis_url: str, burst: str) -> tuple[Found, Found]:
    """On schedule, and at full load."""
    with TemporaryDirectory(prefix="lab-limits-") as folder, ExitStack() as stack:
        room = Path(folder)
        session = stack.enter_context(open_session(room, cores, compile_programs(room), _SCALE))
        ups = [
            stack.enter_context(session.peer(_limited(kind, name, store, burst)))
            for name, store in (("off", ""), ("memory", "memory"), ("redis", redis_url))
        ]
        paced = interleave(session, ups, _SCALE.requests_rounds, requests.take)
        return paced, interleave(session, ups, _SCALE.rps_rounds, rps.take)


def _added(found: Found, name: str, key: str) -> float:
    """The median of what `name` has more than `off`, round by round."""
    pairs = list(zip(found["off"], found[name], strict=False))
    if len(pairs) < _SCALE.rps_rounds:
        raise LabFailed("a round failed")
    return median(with_limits[key] - without[key] for without, with_limits in pairs)


def _cpu(found: Found, name: str) -> float:
    return _added(found, name, "cpu_us")


def _findings(paced: Found, full: Found) -> list[Finding]:
    paced_us, full_us = (median(values["cpu_us"] for values in found["off"]) for found in (paced, full))
    findings: list[Finding] = []
    for name in ("redis", "memory"):
        latency_us = _added(paced, name, "latency_p50_us")
        findings += [
            no_more_than(f"{name}: p50 added, 2,000/s", latency_us / 1e3, _LATENCY_BOUND_MS, "ms"),
            no_more_than(f"{name}: CPU added to {paced_us:.0f} us, 2,000/s", _cpu(paced, name), _CPU_BOUND_US, "us"),
            no_more_than(f"{name}: CPU added to {full_us:.0f} us, full load", _cpu(full, name), _CPU_BOUND_US, "us"),
        ]
    return findings


def _lab(burst: str) -> Callable[[Stage], Awaitable[list[Finding]]]:
    async def run(stage: Stage) -> list[Finding]:
        kind = CompiledLlmproxy if CompiledLlmproxy().missing() is None else Llmproxy
        try:
            cores = choose_cores()
            with TemporaryDirectory(prefix="lab-redis-") as folder:
                async with RedisServer(Path(folder)) as redis:
                    os.sched_setaffinity(redis.process.pid, {cores.load})
                    url = f"redis://127.0.0.1:{redis.port}/0"
                    paced, full = await asyncio.to_thread(_measure, kind, cores, url, burst)
        except (TooFewCores, CompilerMissing, PeerFailed, LoadFailed) as error:
            raise LabFailed(str(error)) from None
        return [replace(one, figure=f"{one.figure} ({kind.name})") for one in _findings(paced, full)]

    return run


LAB = Lab("limits-cost", "What limits add to a request, 2,000 a second", _lab(""), 300.0, on_request=True)
EACH_LAB = Lab("limits-cost-each", "The same, each asked for", _lab(_NARROW), 300.0, on_request=True)
