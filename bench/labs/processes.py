"""The product as its users run it: `python -m llmproxy ...`, a process each, ended by its process id."""

import asyncio
import ctypes
import re
import signal
import sys
from pathlib import Path
from types import TracebackType

from bench.labs.failure import LabFailed

_START_S = 20.0
_LOOK_S = 0.005
_PR_SET_PDEATHSIG = 1


class Running:
    """`async with Running(log, "serve", ...) as process:`; killed at the end if it still runs.

    In a session of its own, so that Ctrl-C reaches only the lab, which then ends what it started; the kernel ends it
    should the lab be killed outright. The output goes to the file `log`: nobody has to keep reading it.
    """

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        # -P: not a package that happens to lie in the current directory.
        self._command = (sys.executable, "-P", "-m", "llmproxy", *arguments)

    async def __aenter__(self) -> "Running":
        with self._log.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_the_lab,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    async def says(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait until its output, from character `after` on, matches `pattern`."""
        try:
            async with asyncio.timeout(_START_S):
                while (found := re.compile(pattern).search(self.said, after)) is None:
                    if self.process.returncode is not None:
                        raise LabFailed(f"ended with status {self.process.returncode}; {self._last_words()}")
                    await asyncio.sleep(_LOOK_S)
                return found
        except TimeoutError:
            raise LabFailed(f"did not say {pattern!r}; {self._last_words()}") from None

    def _last_words(self) -> str:
        return "it said:\n" + "\n".join(self.said.splitlines()[-5:])


def _end_with_the_lab() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Engine(Running):
    """`llmproxy emulate` on a free port."""

    async def __aenter__(self) -> "Engine":
        await super().__aenter__()
        return self

    async def ready(self) -> None:
        """Wait until it answers, and learn its port."""
        self.port = int((await self.says(r"emulated vLLM at http://[\d.]+:(\d+)"))[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Proxy(Running):
    """`llmproxy serve` on free ports."""

    async def __aenter__(self) -> "Proxy":
        await super().__aenter__()
        return self

    async def ready(self) -> None:
        """Wait until it listens, and learn its ports."""
        self.port = int((await self.says(r"serving http://[\d.]+:(\d+) "))[1])
        self.admin_port = int((await self.says(r"admin API on http://[\d.]+:(\d+)"))[1])
