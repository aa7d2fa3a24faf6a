"""The access log with its thread, on real files, pipes and full disks."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmproxy.telemetry.access_log import AccessLog
from llmproxy.telemetry.sink import DescriptorSink, FileSink

Start = Callable[..., AccessLog]

PATIENCE_S = 20.0
FULL_DISK = Path(__file__).parent / "full_disk.py"


def test_lines_come_without_being_asked_for(kit: Any, start_log: Start, log_path: Path) -> None:
    log = start_log(FileSink(str(log_path)))
    for number in range(300):
        log.append(kit.record(number))
    kit.until(lambda: log_path.exists() and log_path.read_bytes().count(b"\n") == 300, "all the lines")
    assert kit.ids(log_path.read_bytes()) == list(range(300))


def test_flush_writes_all_that_was_appended_before(kit: Any, start_log: Start, log_path: Path) -> None:
    log = start_log(FileSink(str(log_path)), interval_s=3600)
    for number in range(5):
        log.append(kit.record(number))
        assert log.flush(PATIENCE_S)
        assert kit.ids(log_path.read_bytes()) == list(range(number + 1))


def test_close_writes_what_is_there_and_later_records_are_dropped(kit: Any, start_log: Start, log_path: Path) -> None:
    log = start_log(FileSink(str(log_path)), interval_s=3600)
    for number in range(1000):
        log.append(kit.record(number))
    log.close(PATIENCE_S)
    log.append(kit.record(1000))
    assert kit.ids(log_path.read_bytes()) == list(range(1000))
    assert log.dropped == 1
    log.close()
    assert not log.flush()


def test_close_before_start_does_nothing(log_path: Path) -> None:
    log = AccessLog(FileSink(str(log_path)))
    assert not log.flush()
    log.close()
    assert not log_path.exists()


def test_rotation_under_load_loses_and_repeats_nothing(kit: Any, start_log: Start, log_path: Path) -> None:
    log = start_log(FileSink(str(log_path)), interval_s=0.001)
    files = []
    for turn in range(5):
        for number in range(turn * 200, turn * 200 + 200):
            log.append(kit.record(number))
        kit.until(log_path.exists, "a new file")
        files.append(log_path.rename(log_path.with_suffix(f".{turn}")))
        log.reopen()
    log.close(PATIENCE_S)
    written = b"".join(file.read_bytes() for file in files) + (log_path.read_bytes() if log_path.exists() else b"")
    assert kit.ids(written) == list(range(1000))


def test_full_device_costs_lines_and_nothing_else(kit: Any, start_log: Start, caplog: pytest.LogCaptureFixture) -> None:
    log = start_log(FileSink("/dev/full"), pending_max_bytes=50_000)
    appended = 0
    while not log.dropped:
        log.append(kit.record(appended))
        appended += 1
        if appended % 200 == 0:
            assert not log.flush(0.02)
    assert appended > 100
    log.close()
    assert log.dropped == appended
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("access log: cannot write to /dev/full: No space left on device")
    assert last == f"access log: closed; {appended} lines were lost in all"


def test_missing_directory_is_told_and_healed(
    kit: Any, start_log: Start, log_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = log_path.parent / "not-yet" / "access.log"
    log = start_log(FileSink(str(path)))
    log.append(kit.record(0))
    kit.until(lambda: caplog.records, "a report")
    assert "No such file or directory" in caplog.records[0].getMessage()
    path.parent.mkdir()
    kit.until(lambda: len(caplog.records) == 2, "the report of its end")
    assert caplog.records[1].getMessage() == f"access log: writing to {path} again; 0 lines were dropped"
    assert kit.ids(path.read_bytes()) == [0]


def test_reader_that_stops_reading_costs_the_newest_lines_and_gets_the_rest_later(
    kit: Any, start_log: Start, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = os.pipe()
    log = start_log(DescriptorSink(writer), pending_max_bytes=100_000)
    os.close(writer)
    appended = 0
    while not log.dropped:
        for _ in range(200):
            log.append(kit.record(appended))
            appended += 1
        log.flush(0.005)
    got = bytearray()
    with open(reader, "rb", buffering=0) as stream:
        draining = threading.Thread(target=lambda: got.extend(stream.read()))
        draining.start()
        assert log.flush(PATIENCE_S)
        kit.until(lambda: len(caplog.records) == 2, "the report of its end")
        log.append(kit.record(appended))
        log.close(PATIENCE_S)
        draining.join(PATIENCE_S)
    ids = kit.ids(bytes(got))
    assert ids == [*range(len(ids) - 1), appended]
    assert len(ids) + log.dropped == appended + 1
    assert "takes lines too slowly" in caplog.records[0].getMessage()
    assert f"{log.dropped} lines were dropped" in caplog.records[1].getMessage()


def test_reader_that_left_costs_lines_only(kit: Any, start_log: Start, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    log = start_log(DescriptorSink(writer, "the pipe"))
    os.close(writer)
    os.close(reader)
    log.append(kit.record(0))
    kit.until(lambda: caplog.records, "a report")
    log.append(kit.record(1))
    log.close()
    assert "cannot write to the pipe: Broken pipe" in caplog.records[0].getMessage()
    assert log.dropped == 2


def test_close_gives_up_on_a_reader_that_stopped(kit: Any, start_log: Start) -> None:
    reader, writer = os.pipe()
    log = start_log(DescriptorSink(writer))
    os.close(writer)
    for number in range(2000):
        log.append(kit.record(number))
    log.close(0.05)
    with open(reader, "rb") as stream:
        got = stream.read()
    assert 0 < got.count(b"\n") < 2000
    assert got.count(b"\n") + log.dropped == 2000


class HungSink(FileSink):
    """A disk that hangs in a write until let go."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def write(self, data: memoryview) -> int:
        self.entered.set()
        self.let_go.wait(20)
        return super().write(data)


def test_hung_disk_holds_up_neither_requests_nor_the_exit(
    kit: Any, start_log: Start, log_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = HungSink(str(log_path))
    log = start_log(sink, queue_max=10)
    log.append(kit.record(0))
    assert sink.entered.wait(20)
    for number in range(1, 31):
        log.append(kit.record(number))
    assert log.dropped == 20
    log.close(0.0)
    assert "hangs" in caplog.records[-1].getMessage()
    sink.let_go.set()
    kit.until(lambda: not log._thread.is_alive(), "the end of the thread")


def test_writer_survives_a_defect(
    kit: Any, start_log: Start, log_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = start_log(FileSink(str(log_path)))
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):

        def explode(now: float) -> None:
            raise RuntimeError("a defect")

        patch.setattr(log._writer, "step", explode)
        kit.until(lambda: caplog.records, "a report")
    log.append(kit.record(7))
    assert log.flush(PATIENCE_S)
    assert kit.ids(log_path.read_bytes()) == [7]


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_file_size_limit_then_room_again(log_path: Path) -> None:
    done = run(sys.executable, str(FULL_DISK), "rlimit", str(log_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_tmpfs_that_is_full_then_has_room_again(tmp_path: Path) -> None:
    namespace = ("unshare", "--map-root-user", "--mount")
    mount = ("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path))
    try:
        probe = run(*namespace, *mount)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if probe.returncode:
        pytest.skip(f"no private tmpfs here: {probe.stderr.strip()}")
    script = f"{' '.join(mount)} && exec {sys.executable} {FULL_DISK} tmpfs {tmp_path}/access.log"
    done = run(*namespace, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")


def test_process_started_with_its_output_closed(tmp_path: Path) -> None:
    """Descriptor 1 is free then, and the next file opened gets it: no line may land there."""
    victim = tmp_path / "victim"
    script = f"""
import sys
from llmproxy.telemetry.access_log import AccessLog
from llmproxy.telemetry.record import AccessRecord
from llmproxy.telemetry.sink import sink_for
sink = sink_for(None)
victim = open({str(victim)!r}, "wb", buffering=0)
assert victim.fileno() == 1, victim.fileno()
log = AccessLog(sink)
log.start()
log.append(AccessRecord(0.0, "r", "c", "GET", "/"))
log.close()
sys.exit(log.dropped)
"""
    done = run("sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, script)
    assert done.returncode == 1, done.stderr
    assert "cannot open standard output: it is closed" in done.stderr
    assert victim.read_bytes() == b""
