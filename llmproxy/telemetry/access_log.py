"""The access log: requests append records, a thread of its own encodes and writes them.

The thread wakes every `interval_s`, so a request's line is late by that much at most while all is well. Nothing a
disk or a reader does reaches a request: see `writer.py` for what happens to lines that cannot be written.
"""

import logging
import threading
import time
from collections.abc import Callable

from llmproxy.telemetry.record import AccessRecord
from llmproxy.telemetry.sink import Sink
from llmproxy.telemetry.writer import RecordQueue, Writer

logger = logging.getLogger(__name__)


class AccessLog:
    """`append` is for the event loop's thread alone; the sink belongs to the writer thread from `start` on."""

    append: Callable[[AccessRecord], None]
    """Queue one record. Never blocks, never raises. (The queue's own method: one call less for each request.)"""

    def __init__(
        self,
        sink: Sink,
        *,
        interval_s: float = 0.2,
        queue_max: int = 16384,
        pending_max_bytes: int = 8 << 20,
        calm_s: float = 5.0,
        prefix_key: bytes = b"",
    ) -> None:
        self._sink = sink
        self._interval_s = interval_s
        self._queue = RecordQueue(queue_max)
        self._writer = Writer(
            self._queue, sink, pending_max_bytes=pending_max_bytes, calm_s=calm_s, prefix_key=prefix_key
        )
        self.append = self._queue.append
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        # From other threads to the writer's.
        self._wake = threading.Event()
        self._reopen = False
        self._closing_by: float | None = None
        # From the writer's thread to `flush`: passes begun and done.
        self._passed = threading.Condition()
        self._begun = 0
        self._done = 0

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._writer.dropped

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def flush(self, timeout_s: float = 1.0) -> bool:
        """Wait until what was appended before is written; False when that took longer. Not for the event loop."""
        with self._passed:
            target = self._begun + 1
            self._wake.set()
            return self._passed.wait_for(
                lambda: self._done >= target and not self._writer.pending_bytes, timeout_s if self._alive else 0
            )

    def reopen(self) -> None:
        """Open the file again (after a rotation), soon and in the writer's thread."""
        self._reopen = True
        self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is there, for `timeout_s` at most, and end the thread. Later records count as dropped."""
        self._queue.limit = 0
        if not self._alive:
            return
        self._closing_by = time.monotonic() + timeout_s
        self._wake.set()
        # A write to a hung disk cannot be interrupted; the thread is a daemon, so the process can still end.
        self._thread.join(timeout_s + 0.5)
        if self._thread.is_alive():
            logger.error("access log: %s hangs; at least %d lines are lost", self._sink.name, self.dropped)

    @property
    def _alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while self._closing_by is None:
            self._pass()
            self._pause(self._interval_s)
        while True:
            self._pass()
            left_s = self._closing_by - time.monotonic()
            # Full for the moment is worth a wait; an error at the end is not.
            if not self._writer.blocked or left_s <= 0:
                break
            self._pause(min(left_s, self._interval_s))
        self._writer.give_up()

    def _pass(self) -> None:
        with self._passed:
            self._begun += 1
        try:
            if self._reopen:
                self._reopen = False
                self._writer.reopen(time.monotonic())
            self._writer.step(time.monotonic())
        except Exception:
            logger.exception("access log: a batch was lost")
        with self._passed:
            self._done = self._begun
            self._passed.notify_all()

    def _pause(self, timeout_s: float) -> None:
        if self._writer.blocked:
            self._sink.wait(timeout_s)
        elif self._wake.wait(timeout_s):
            # Cleared before the flags are looked at, so none that is set meanwhile is missed.
            self._wake.clear()
