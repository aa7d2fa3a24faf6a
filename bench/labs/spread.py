"""20 concurrent requests over two equal backends: how evenly they fall, and what the proxy adds to their latency.

Rounds through the proxy and rounds straight to the engines take turns, so that what else the machine does hits both.
Each asks for one token, which an idle engine gives after its fixed time, whatever the others do.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from bench.labs.answer import Answer
from bench.labs.base import Finding, Lab, ms, no_less_than, no_more_than, percentile
from bench.labs.client import Client
from bench.labs.failure import LabFailed
from bench.labs.stage import Stage

_TOGETHER = 20
_ROUNDS = 30
_ENGINE_MS = 100


async def run(stage: Stage) -> list[Finding]:
    options = ["--ttft", str(_ENGINE_MS)]
    engines = await stage.engines(options, options)
    proxy = await stage.proxy(stage.config(engines))
    through = await stage.clients(proxy.port, _TOGETHER)
    half = _TOGETHER // 2
    direct = [*await stage.clients(engines[0].port, half), *await stage.clients(engines[1].port, half)]
    for clients in (through, direct):
        await _round(clients)
    proxied: list[float] = []
    bare: list[float] = []
    least = _TOGETHER
    for _ in range(_ROUNDS):
        answers = await _round(through)
        counts = Counter(answer.backend for answer in answers)
        least = min(least, counts["b1"], counts["b2"])
        proxied += map(_took_s, answers)
        bare += map(_took_s, await _round(direct))
    return [
        no_less_than(f"fewest of {_TOGETHER} on one backend, {_ROUNDS} rounds", least, half),
        no_more_than("latency added, p50", ms(percentile(proxied, 50) - percentile(bare, 50)), 10, "ms"),
        no_more_than("latency added, p99", ms(percentile(proxied, 99) - percentile(bare, 99)), 30, "ms"),
    ]


async def _round(clients: Sequence[Client]) -> list[Answer]:
    """Everyone asks in the same moment."""
    answers = [client.chat(1, stream=bool(number % 2)) for number, client in enumerate(clients)]
    await asyncio.gather(*(answer.over.wait() for answer in answers))
    for number, answer in enumerate(answers):
        if (flaw := answer.flaw(1, stream=bool(number % 2))) is not None:
            raise LabFailed(flaw)
    return answers


def _took_s(answer: Answer) -> float:
    return answer.ended_at - answer.sent_at


LAB = Lab("spread", "20 concurrent requests over two equal backends", run)
