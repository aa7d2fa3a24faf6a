"""SIGHUP that replaces a backend under load, again and again: nothing fails, and nobody has to wait.

What a reload adds is the 99th percentile of the requests that were under way at any time between the signal and the
new backend's first answer, less that of the requests before the first reload.
"""

import asyncio
import signal
import time

from bench.labs.answer import Answer
from bench.labs.base import Finding, Lab, ms, never, no_less_than, no_more_than, percentile
from bench.labs.load import Load
from bench.labs.stage import Stage, until

_BEFORE_S = 2.0
_RELOADS = 8
_BETWEEN_S = 0.3
_CLIENTS = 16
_TOKENS = 4

Span = tuple[float, float]


async def run(stage: Stage) -> list[Finding]:
    options = ["--ttft", "20", "--itl", "5"]
    stays, one, other = await stage.engines(options, options, options)
    config = stage.config([stays, one])
    proxy = await stage.proxy(config)
    reloads: list[Span] = []
    async with Load(proxy.port, clients=_CLIENTS, tokens=_TOKENS) as load:
        await asyncio.sleep(_BEFORE_S)
        before = list(load.answers)
        for number in range(_RELOADS):
            comes, name = (other, one)[number % 2], f"r{number}"
            config.write({"b1": stays.url, name: comes.url})
            asked_at = time.monotonic()
            proxy.signal(signal.SIGHUP)
            reloads.append((asked_at, await _first_answer_at(load, name)))
            await asyncio.sleep(_BETWEEN_S)
    during = [answer for answer in load.answers if _within(answer, reloads)]
    added_s = percentile(map(_took_s, during), 99) - percentile(map(_took_s, before), 99)
    slowest_s = max(end - begin for begin, end in reloads)
    return [
        never(f"failed in {_RELOADS} reloads", load.failures),
        no_less_than("under way during a reload", len(during), _RELOADS * _CLIENTS),
        no_more_than("latency added by a reload, p99", ms(added_s), 100, "ms"),
        no_more_than("until the new backend answers, worst", ms(slowest_s), 1000, "ms"),
    ]


async def _first_answer_at(load: Load, backend: str) -> float:
    """When the first request answered by this backend was done."""
    looked = 0

    def found() -> Answer | None:
        nonlocal looked
        new, looked = load.answers[looked:], len(load.answers)
        return next((answer for answer in new if answer.backend == backend), None)

    answer: Answer = await until(found, f"an answer from {backend}")
    return answer.ended_at


def _within(answer: Answer, spans: list[Span]) -> bool:
    """Whether it was under way at any time of the spans."""
    return any(answer.sent_at < end and answer.ended_at > begin for begin, end in spans)


def _took_s(answer: Answer) -> float:
    return answer.ended_at - answer.sent_at


LAB = Lab("reload", "SIGHUP replaces a backend under load", run)
