"""The writer driven by hand: a sink that does as told, and a clock."""

import errno
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from llmproxy.telemetry.writer import RecordQueue, Writer


class MoodySink:
    """Takes `room` bytes (None: all), or fails with `error`; `files[-1]` is what it writes to."""

    def __init__(self) -> None:
        self.name = "moody"
        self.files: list[bytearray] = []
        self.room: int | None = None
        self.error: int | None = None
        self.writes = 0
        self.closed = False

    def open(self) -> bool:
        self.raise_if_told()
        self.files.append(bytearray())
        return True

    def write(self, data: memoryview) -> int:
        self.writes += 1
        self.raise_if_told()
        taken = data if self.room is None else data[: self.room]
        if self.room is not None:
            self.room -= len(taken)
        self.files[-1] += taken
        return len(taken)

    def wait(self, timeout_s: float) -> None: ...

    def close(self) -> None:
        self.closed = True

    def raise_if_told(self) -> None:
        if self.error is not None:
            raise OSError(self.error, {errno.ENOSPC: "No space left on device"}.get(self.error, "gone"))


class Bench:
    def __init__(self, record: Callable[..., Any], *, limit: int = 1000, pending_max_bytes: int = 1 << 20) -> None:
        self.sink = MoodySink()
        self.queue = RecordQueue(limit)
        self.writer = Writer(self.queue, self.sink, pending_max_bytes=pending_max_bytes, calm_s=5.0)
        self.record = record
        self.count = 0

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            self.queue.append(self.record(self.count))
            self.count += 1

    def written(self, file: int = -1) -> list[int]:
        lines = bytes(self.sink.files[file]).splitlines()
        return [int(json.loads(line)["request_id"][1:]) for line in lines]


@pytest.fixture
def bench(kit: Any) -> Bench:
    return Bench(kit.record)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_everything_queued_is_written_in_order(bench: Bench) -> None:
    bench.append(1000)
    bench.writer.step(0.0)
    assert bench.written() == list(range(1000))
    assert (bench.writer.pending_bytes, bench.writer.dropped) == (0, 0)
    assert bench.sink.writes == 8  # batches, not lines


def test_full_queue_drops_the_newest_and_counts(kit: Any) -> None:
    bench = Bench(kit.record, limit=10)
    bench.append(25)
    bench.writer.step(0.0)
    assert bench.written() == list(range(10))
    assert bench.writer.dropped == 15


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPIPE])
def test_error_keeps_lines_until_they_can_be_written(
    bench: Bench, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench.append(3)
    bench.writer.step(0.0)
    bench.sink.error = number
    for now in range(1, 6):
        bench.append(200)
        bench.writer.step(float(now))
    assert bench.sink.writes == 6  # a failing disk is asked once a step, not once a batch
    bench.sink.error = None
    bench.writer.step(6.0)
    assert bench.written() == list(range(1003))
    assert bench.writer.dropped == 0
    assert len(messages(caplog)) == 1


def test_trouble_is_told_once_and_its_end_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.sink.error = errno.ENOSPC
    for now in range(10):
        bench.append()
        bench.writer.step(float(now))
    assert messages(caplog) == [
        "access log: cannot open moody: No space left on device; "
        "lines wait in memory, as many as fit, and the newest are dropped"
    ]
    bench.sink.error = None
    for now in (10.0, 12.0, 13.9):
        bench.writer.step(now)
    assert len(messages(caplog)) == 1
    bench.writer.step(14.0)
    assert messages(caplog)[1:] == ["access log: writing to moody again; 0 lines were dropped"]
    bench.sink.error = errno.EIO
    bench.append()
    bench.writer.step(20.0)
    assert messages(caplog)[2:] == [
        "access log: cannot write to moody: gone; lines wait in memory, as many as fit, and the newest are dropped"
    ]


def test_each_end_of_trouble_tells_of_its_own_losses(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(kit.record, limit=10)
    for now, lost in ((0.0, 3), (100.0, 4)):
        bench.append(10 + lost)
        bench.writer.step(now)
        bench.writer.step(now + 50)
    ends = [message for message in messages(caplog) if "again" in message]
    assert [message.partition("; ")[2] for message in ends] == ["3 lines were dropped", "4 lines were dropped"]


def test_a_disk_on_the_edge_does_not_fill_the_other_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for turn in range(20):
        bench.sink.error = errno.ENOSPC if turn % 2 else None
        bench.append()
        bench.writer.step(float(turn))
    assert len(messages(caplog)) == 1


def test_pending_bytes_are_bounded(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(kit.record, pending_max_bytes=100_000)
    bench.sink.room = 0
    for now in range(50):
        bench.append(100)
        bench.writer.step(float(now))
    batch_bytes = 128 * 500
    assert 100_000 <= bench.writer.pending_bytes < 100_000 + batch_bytes
    assert len(bench.queue.records) == 0
    assert bench.writer.blocked
    dropped = bench.writer.dropped
    bench.sink.room = None
    bench.writer.step(60.0)
    kept = bench.written()
    assert kept == list(range(len(kept)))
    assert len(kept) + dropped == 5000
    bench.writer.step(70.0)
    assert messages(caplog) == [
        "access log: moody takes lines too slowly; the newest are dropped",
        f"access log: writing to moody again; {dropped} lines were dropped",
    ]


def test_sink_that_takes_a_little_at_a_time_gets_whole_lines_in_order(bench: Bench) -> None:
    bench.append(50)
    for step in range(10_000):
        bench.sink.room = 7
        bench.writer.step(float(step))
        if not bench.writer.pending_bytes:
            break
    assert bench.written() == list(range(50))
    assert bench.writer.pending_bytes == 0


def test_reopen_in_the_middle_of_a_line_writes_that_line_whole(bench: Bench) -> None:
    bench.append(3)
    bench.sink.room = 700  # one line and a part of the second
    bench.writer.step(0.0)
    bench.sink.room = None
    bench.writer.reopen(1.0)
    bench.writer.step(1.0)
    old = bytes(bench.sink.files[0])
    assert old.count(b"\n") == 1
    assert not old.endswith(b"\n")
    assert bench.written(1) == [1, 2]
    assert bench.writer.pending_bytes == 0


def test_giving_up_counts_what_is_lost(bench: Bench) -> None:
    bench.append(300)
    bench.sink.room = 700
    bench.writer.step(0.0)
    bench.append(5)
    bench.writer.give_up()
    assert bench.writer.dropped == 304
    assert bench.writer.pending_bytes == 0
    assert bench.sink.closed


def test_record_that_cannot_be_encoded_is_dropped_and_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.queue.append(bench.record(0, status=object()))
    bench.queue.append(bench.record(1))
    with caplog.at_level(logging.ERROR):
        bench.writer.step(0.0)
    assert bench.written() == [1]
    assert bench.writer.dropped == 1
    assert messages(caplog) == ["access log: a record could not be encoded and is left out"]
