"""NVML for an event loop: its calls happen one after another on a thread of their own, and a caller may give up.

A driver that has lost its GPU may block for good. Then this one thread stays in that call, every further read fails at
once instead of piling up behind it, and the process can still end: the thread is a daemon.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from llmproxy.control.signals.nvml_library import GpuReading, NvmlError, NvmlLibrary
from llmproxy.core.backend import GpuGauges
from llmproxy.core.clock import Clock

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any] | None"]


class Nvml:
    """The GPUs of this host. The thread begins with the first read and ends with `close`."""

    def __init__(self, clock: Clock, library: NvmlLibrary | None = None) -> None:
        self._library = library or NvmlLibrary(clock)
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up: set[asyncio.Future[Any]] = set()
        """Reads that nobody waits for any more, and that are not over."""

    async def read(self, which: int | str, now: float) -> GpuGauges:
        """The gauges of the GPU with this number or UUID. Raises `NvmlError`."""
        return await self._do(lambda: self._library.read(which, now))

    async def read_all(self, now: float) -> list[GpuReading]:
        """Every GPU there is. Raises `NvmlError`."""
        return await self._do(lambda: self._library.read_all(now))

    def close(self) -> None:
        """Close the library, as soon as the thread gets to it."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put((self._library.close, None))

    async def _do(self, call: Callable[[], T]) -> T:
        if self._given_up:
            raise NvmlError("the driver does not answer")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._thread is None:
            self._jobs = queue.SimpleQueue()
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name="nvml", daemon=True)
            self._thread.start()
        self._jobs.put((call, done))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            self._given_up.add(done)
            done.add_done_callback(self._came_late)
            raise

    def _came_late(self, done: "asyncio.Future[Any]") -> None:
        self._given_up.discard(done)
        if not done.cancelled():
            done.exception()  # looked at, so that nobody complains that it never was


def _work(jobs: "queue.SimpleQueue[_Job]") -> None:
    while True:
        call, done = jobs.get()
        result: Any = None
        failure: BaseException | None = None
        try:
            result = call()
        except BaseException as error:
            failure = error
        if done is None:
            return
        with suppress(RuntimeError):  # the loop is closed
            done.get_loop().call_soon_threadsafe(_settle, done, result, failure)


def _settle(done: "asyncio.Future[Any]", result: object, failure: BaseException | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(cast("Exception", failure))
