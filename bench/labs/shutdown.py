"""SIGTERM under load: nothing is dropped, and the process is gone soon after the last stream's end.

Three kinds of clients: streams that last well beyond the signal, clients that ask again and again until no connection
can be made, and idle ones. None of them closes its connection by itself.
"""

import asyncio
import signal
import time

from bench.labs.base import Finding, Lab, ms, never, no_less_than, no_more_than
from bench.labs.load import Load
from bench.labs.stage import Stage, until

_STREAMS = 40
_TOKENS = 250
_IDLE = 5
_EXIT_BOUND_MS = 1500
"""The proxy keeps an idle connection for a second, because a request may be on its way."""


async def run(stage: Stage) -> list[Finding]:
    options = ["--ttft", "50", "--itl", "10"]
    engines = await stage.engines(options, options)
    proxy = await stage.proxy(stage.config(engines))
    streams = [client.chat(_TOKENS) for client in await stage.clients(proxy.port, _STREAMS)]
    for client in await stage.clients(proxy.port, _IDLE):
        await client.chat(1).over.wait()
    await asyncio.gather(*(answer.begun.wait() for answer in streams))
    async with Load(proxy.port, clients=10, until_refused=True) as load:
        await until(lambda: len(load.answers) >= 40, "load")
        before = len(load.answers)
        proxy.signal(signal.SIGTERM)
        await until(lambda: load.over, "a closed port")
    await asyncio.gather(*(answer.over.wait() for answer in streams))
    status = await proxy.process.wait()
    exited_at = time.monotonic()
    flaws = [flaw for answer in streams if (flaw := answer.flaw(_TOKENS, stream=True))]
    last_at = max(answer.ended_at for answer in streams)
    return [
        never("dropped", load.failures + flaws),
        no_less_than("answered after the signal", len(load.answers) - before + len(streams), _STREAMS),
        no_more_than("exit status", abs(status), 0),
        no_more_than("from the last stream's end to the exit", ms(exited_at - last_at), _EXIT_BOUND_MS, "ms"),
    ]


LAB = Lab("shutdown", "SIGTERM under load", run)
