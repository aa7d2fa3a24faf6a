"""The product as its users run it: `python -m llmproxy ...` in a process of its own, its output read as it comes."""

import asyncio
import re
import signal
import sys
from types import TracebackType

import aiohttp

from tests.harness.waiting import until


class Running:
    """`async with Running("serve", "--config", path) as proxy:`; killed at the end if it still runs."""

    def __init__(self, *arguments: str, module: str = "llmproxy", env: dict[str, str] | None = None) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._env = env
        self._changed = asyncio.Event()
        self._pumps: list[asyncio.Task[None]] = []
        self.out = ""
        self.err = ""

    async def __aenter__(self) -> "Running":
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=self._env
        )
        self._pumps = [asyncio.ensure_future(self._pump("out")), asyncio.ensure_future(self._pump("err"))]
        try:
            await self._introduced()
        except BaseException:
            # Whoever fails to enter is not asked to leave.
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _introduced(self) -> None:
        """Wait for what it says first, and keep it."""

    async def _end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._pumps)

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def says(self, pattern: str, timeout_s: float = 20.0) -> re.Match[str]:
        """Wait until its output (either stream) matches `pattern`."""
        async with asyncio.timeout(timeout_s):
            while (found := re.search(pattern, self.out) or re.search(pattern, self.err)) is None:
                if self.process.returncode is not None and all(pump.done() for pump in self._pumps):
                    raise AssertionError(f"it ended ({self.process.returncode}) without saying {pattern!r}: {self}")
                self._changed.clear()
                await self._changed.wait()
            return found

    async def ends(self, timeout_s: float = 20.0) -> int:
        """Wait for its end; the exit status."""
        async with asyncio.timeout(timeout_s):
            await self.process.wait()
            await asyncio.gather(*self._pumps)
        assert self.process.returncode is not None
        return self.process.returncode

    def __repr__(self) -> str:
        return f"<Running {' '.join(self._command[1:])}\n--- out\n{self.out}\n--- err\n{self.err}>"

    async def _pump(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        while data := await stream.read(65536):
            setattr(self, name, getattr(self, name) + data.decode("utf-8", "replace"))
            self._changed.set()
        self._changed.set()


class EmulatedProcess(Running):
    """An emulated backend as a process of its own; `url` is known once it is entered."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("--port", "0", *arguments, module="llmproxy.emulator")

    async def __aenter__(self) -> "EmulatedProcess":
        await super().__aenter__()
        return self

    async def _introduced(self) -> None:
        self.url = (await self.says(r"http://[\d.]+:\d+"))[0]


class ServingProcess(Running):
    """`llmproxy serve` over a configuration file that asks for free ports."""

    def __init__(self, config: str) -> None:
        super().__init__("serve", "--config", config)

    async def __aenter__(self) -> "ServingProcess":
        await super().__aenter__()
        return self

    async def _introduced(self) -> None:
        self.port = int((await self.says(r"serving https?://[\d.]+:(\d+) "))[1])
        self.admin_url = (await self.says(r"admin API on (http://[\d.]+:\d+)"))[1]

    async def ready(self) -> None:
        """Wait until it has backends to give work to."""

        async def is_ready() -> bool:
            async with aiohttp.ClientSession() as http, http.get(f"{self.admin_url}/readyz") as response:
                return response.status == 200

        await until(is_ready, f"a ready proxy: {self}")
