"""A redis-server of a lab's own, on a free port; ended by its process id."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from types import TracebackType

from bench.labs.failure import LabFailed
from bench.processes import free_port

_START_S = 10.0


class RedisServer:
    """`async with RedisServer(directory) as redis:`. The port stays over `kill` and `start`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = free_port()

    async def __aenter__(self) -> "RedisServer":
        if shutil.which("redis-server") is None:
            raise LabFailed("redis-server is not installed (sh tests/needs.sh)")
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *("redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""),
            *("--dir", str(self._directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                while not await self._answers():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise LabFailed("redis-server did not start") from None

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"PING\r\n")
        answer = await reader.readline()
        writer.close()
        return answer == b"+PONG\r\n"
