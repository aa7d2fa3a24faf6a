"""An emulated server as a process: it prints its address, serves, and on SIGTERM ends as vLLM does."""

import asyncio
import resource
import signal
import sys

import uvloop

from llmproxy.emulator.options import EmulatorOptions
from llmproxy.emulator.server import Emulator


def run(options: EmulatorOptions) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. The first line on stdout holds the address."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        return uvloop.run(_serve(options))
    except OSError as error:
        print(f"cannot listen on {options.host} port {options.port}: {error.strerror}", file=sys.stderr)
        return 1


async def _serve(options: EmulatorOptions) -> int:
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    async with Emulator(options) as emulator:
        who = f"{options.name}: " if options.name else ""
        print(f"{who}emulated vLLM at {emulator.url} serving {', '.join(options.models)}", flush=True)
        await told_to_stop.wait()
        await emulator.drain(options.shutdown_timeout_s)
    return 0
