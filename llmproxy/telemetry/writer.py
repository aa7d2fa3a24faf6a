"""What the access log's thread does, without the thread: records -> lines -> sink, with `now` as an argument.

Two bounds hold memory: `RecordQueue.limit` records while the thread is stuck in a write, `pending_max_bytes` of lines
while the sink takes nothing. The newest are dropped and counted, so what is kept has no gaps but one.
"""

import logging
from collections import deque

from llmproxy.telemetry.line import LineEncoder
from llmproxy.telemetry.record import AccessRecord
from llmproxy.telemetry.sink import Sink

_BATCH = 128
"""Encoding holds the interpreter's lock: so few at a time delay the event loop by some 0.2 ms."""
_HASHING_BATCH = 16
"""Hashing prompts takes ten times as long."""
_WHILE = "lines wait in memory, as many as fit, and the newest are dropped"

logger = logging.getLogger(__name__)


class RecordQueue:
    """Between the event loop's thread, which appends, and the writer's, which takes. Neither takes a lock."""

    __slots__ = ("limit", "overflowed", "records")

    def __init__(self, limit: int) -> None:
        self.records: deque[AccessRecord] = deque()
        self.limit = limit
        self.overflowed = 0

    def append(self, record: AccessRecord) -> None:
        if len(self.records) < self.limit:
            self.records.append(record)
        else:
            self.overflowed += 1


class Writer:
    """Empties the queue into the sink. Trouble is told to the proxy's log once, its end once after `calm_s` of calm."""

    def __init__(
        self, queue: RecordQueue, sink: Sink, *, pending_max_bytes: int, calm_s: float, prefix_key: bytes = b""
    ) -> None:
        self._queue = queue
        self._sink = sink
        self._pending_max_bytes = pending_max_bytes
        self._calm_s = calm_s
        self._encoder = LineEncoder(prefix_key)
        self._batch = _HASHING_BATCH if prefix_key else _BATCH
        self._is_open = False
        # Lines that the sink has not taken; of the first piece, `_offset` bytes are written.
        self._pending: deque[bytes] = deque()
        self._offset = 0
        self.pending_bytes = 0
        self.lost = 0
        self.blocked = False
        """The sink is open and takes nothing just now: `sink.wait` tells when it does."""
        # Trouble that was reported and is not over.
        self._troubled = False
        self._trouble_at = 0.0
        self._dropped_before = 0
        self._dropped_seen = 0

    @property
    def dropped(self) -> int:
        """Lines lost, here or because the queue was full."""
        return self.lost + self._queue.overflowed

    def step(self, now: float) -> None:
        """Encode what is queued and write as far as the sink goes."""
        self.blocked = False
        going = (self._is_open or self._open(now)) and self._write(now)
        records = self._queue.records
        # As many as there are now: a busy proxy appends while this runs.
        left = len(records)
        while left > 0:
            batch = [records.popleft() for _ in range(min(left, self._batch))]
            left -= len(batch)
            if self.pending_bytes >= self._pending_max_bytes:
                self.lost += len(batch)
                continue
            data = self._encoder.encode(batch)
            if data:
                self._pending.append(data)
                self.pending_bytes += len(data)
            going = going and self._write(now)
        self._report(now, going)

    def reopen(self, now: float) -> None:
        """After a rotation. A line of which a part went to the old file goes to the new one whole."""
        self._open(now)

    def give_up(self) -> None:
        """The end: what is still here is lost."""
        self.lost += sum(data.count(b"\n", self._offset if i == 0 else 0) for i, data in enumerate(self._pending))
        self.lost += len(self._queue.records)
        self._queue.records.clear()
        self._pending.clear()
        self._offset = self.pending_bytes = 0
        self._sink.close()
        self._is_open = False
        if self.dropped > self._dropped_seen or self._troubled:
            logger.error("access log: closed; %d lines were lost in all", self.dropped)

    def _open(self, now: float) -> bool:
        try:
            elsewhere = self._sink.open()
        except OSError as error:
            self._trouble(f"cannot open {self._sink.name}: {error.strerror or error}; {_WHILE}", now)
            return self._is_open
        if elsewhere and self._pending:
            line_start = self._pending[0].rfind(b"\n", 0, self._offset) + 1
            self.pending_bytes += self._offset - line_start
            self._offset = line_start
        self._is_open = True
        return True

    def _write(self, now: float) -> bool:
        """Write what is pending; False when the sink takes no more in this step."""
        while self._pending:
            data = self._pending[0]
            try:
                written = self._sink.write(memoryview(data)[self._offset :])
            except OSError as error:
                self._trouble(f"cannot write to {self._sink.name}: {error.strerror or error}; {_WHILE}", now)
                return False
            if written == 0:
                self.blocked = True
                return False
            self._offset += written
            self.pending_bytes -= written
            if self._offset == len(data):
                self._pending.popleft()
                self._offset = 0
        return True

    def _report(self, now: float, going: bool) -> None:
        if self._encoder.failed:
            self.lost += self._encoder.failed
            self._encoder.failed = 0
            self._trouble("a record could not be encoded and is left out", now)
        if self.dropped > self._dropped_seen:
            self._trouble(f"{self._sink.name} takes lines too slowly; the newest are dropped", now)
            self._dropped_seen = self.dropped
        elif self._troubled and going and now - self._trouble_at >= self._calm_s:
            self._troubled = False
            lost = self.dropped - self._dropped_before
            logger.warning("access log: writing to %s again; %d lines were dropped", self._sink.name, lost)

    def _trouble(self, what: str, now: float) -> None:
        self._trouble_at = now
        if not self._troubled:
            self._troubled = True
            self._dropped_before = self._dropped_seen
            logger.error("access log: %s", what)
