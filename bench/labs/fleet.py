"""A pool whose replicas the proxy starts itself, and what may be left of them when it was killed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from bench.labs.processes import Proxy
from bench.labs.stage import Stage

_END_S = 20.0


class Fleet:
    """One proxy over one pool (`lab`) of engines it starts."""

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self.proxy = proxy
        self._folder = folder

    def processes(self) -> dict[str, int]:
        """The engines by id: which process each is."""
        try:
            rows = json.loads((self._folder / "replicas.json").read_text())["replicas"]
        except FileNotFoundError:
            return {}
        return {row["id"]: row["pid"] for row in rows if row["pid"]}

    async def end(self) -> None:
        """In order; and whatever the proxy leaves, by process group."""
        with suppress(ProcessLookupError):
            self.proxy.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.proxy.process.wait(), _END_S)
        if self.proxy.process.returncode is None:
            self.proxy.process.kill()
            await self.proxy.process.wait()
        for pid in self.processes().values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@asynccontextmanager
async def fleet(
    stage: Stage, folder: Path, engine: Sequence[str], scaling: dict[str, Any], log: Any
) -> AsyncIterator[Fleet]:
    """`engine`: options of `llmproxy emulate`; `log`: the configuration file to write, whose access log is kept."""
    command = " ".join((sys.executable, "-P", "-m", "llmproxy", "emulate", "--port", "{port}", *engine))
    actuator = {
        "kind": "process",
        "command": command,
        "directory": str(folder),
        "on_exit": "stop",
        "stop_timeout": "3s",
    }
    log.write({}, pool={"scaling": {**scaling, "actuator": actuator}, "queue": {"wait": "60s"}})
    proxy = Fleet(await stage.proxy(log), folder)
    try:
        yield proxy
    finally:
        await proxy.end()
