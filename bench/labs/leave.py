"""Clients that leave: how long until the engine has aborted their requests, and their places are free again.

By FIN and by RST; streams in mid-answer, and requests that wait for a whole answer. In groups, one kind after the
other in each round. The engine is asked every few milliseconds whom it has aborted, so each time is up to that much
too long.
"""

import asyncio
import json
import time

from bench.labs.base import Finding, Lab, ms, no_more_than, percentile
from bench.labs.client import Client
from bench.labs.failure import LabFailed
from bench.labs.stage import Stage, until

_KINDS = (("stream", "FIN"), ("stream", "RST"), ("whole", "FIN"), ("whole", "RST"))
_GROUP = 10
_ROUNDS = 6
_LOOK_S = 0.002
_LIMIT_S = 10.0
_LONG_TOKENS = 1000


async def run(stage: Stage) -> list[Finding]:
    [engine] = await stage.engines(["--ttft", "20", "--itl", "20"])
    proxy = await stage.proxy(stage.config([engine]))
    state = await stage.client(engine.port)
    took_s: dict[tuple[str, str], list[float]] = {kind: [] for kind in _KINDS}
    for turn in range(_ROUNDS):
        for what, how in _KINDS:
            took_s[what, how] += await _leavers(proxy.port, state, f"{what}-{how}-{turn}", what, how)
    everyone = [taken for kind in took_s.values() for taken in kind]
    findings = [no_more_than("until the engine has aborted, p50", ms(percentile(everyone, 50)), 20, "ms")]
    findings += [
        no_more_than(f"until the engine has aborted, {what}, {how}, p99", ms(percentile(taken, 99)), 100, "ms")
        for (what, how), taken in took_s.items()
    ]
    return findings


async def _leavers(port: int, state: Client, name: str, what: str, how: str) -> list[float]:
    """A group that leaves in the same moment."""
    clients = [await Client.open(port) for _ in range(_GROUP)]
    ids = {f"{name}-{number}" for number in range(_GROUP)}
    answers = [
        client.chat(_LONG_TOKENS, stream=what == "stream", id=id) for client, id in zip(clients, ids, strict=True)
    ]
    if what == "stream":
        await asyncio.gather(*(answer.begun.wait() for answer in answers))
    else:

        async def computed() -> bool:
            return bool(json.loads(await state.get("/emulator/state"))["phases"]["decoding"] == _GROUP)

        await until(computed, "requests that the engine computes")
    left_at = time.monotonic()
    for client in clients:
        client.leave(reset=how == "RST")
    took_s: list[float] = []
    while ids:
        aborted = ids.intersection(json.loads(await state.get("/emulator/state"))["aborted_ids"])
        now = time.monotonic()
        took_s += [now - left_at] * len(aborted)
        ids -= aborted
        if now > left_at + _LIMIT_S:
            raise LabFailed(f"{len(ids)} requests go on {_LIMIT_S:g} s after their clients left ({what}, {how})")
        await asyncio.sleep(_LOOK_S)
    return took_s


LAB = Lab("leave", "Clients that leave", run)
