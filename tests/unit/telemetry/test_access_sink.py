import fcntl
import os
import pty
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmproxy.telemetry.sink import DescriptorSink, FileSink, Sink, sink_for

LINE = b'{"line":1}\n'


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def fill(sink: Sink, data: bytes) -> bytes:
    """Write until the sink takes nothing; what it took."""
    taken = b""
    for _ in range(10_000):
        size = sink.write(memoryview(data))
        if size == 0:
            return taken
        taken += data[:size]
    raise AssertionError("the sink never got full")


def test_file_is_appended_to_and_is_not_readable_by_everyone(log_path: Path) -> None:
    for _ in range(2):
        sink = FileSink(str(log_path))
        assert sink.open()
        assert sink.write(memoryview(LINE)) == len(LINE)
        sink.close()
    assert log_path.read_bytes() == LINE * 2
    assert stat.S_IMODE(log_path.stat().st_mode) & 0o007 == 0


def test_file_opened_again_after_a_rotation_is_the_new_one(log_path: Path) -> None:
    sink = FileSink(str(log_path))
    sink.open()
    sink.write(memoryview(b"old\n"))
    rotated = log_path.rename(log_path.with_suffix(".1"))
    sink.write(memoryview(b"still old\n"))
    sink.open()
    sink.write(memoryview(b"new\n"))
    sink.close()
    assert (rotated.read_bytes(), log_path.read_bytes()) == (b"old\nstill old\n", b"new\n")


def test_opening_again_and_again_keeps_one_descriptor(log_path: Path) -> None:
    sink = FileSink(str(log_path))
    sink.open()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        sink.open()
    assert len(os.listdir("/proc/self/fd")) == before
    sink.close()


def test_failed_reopen_keeps_the_open_file(log_path: Path) -> None:
    directory = log_path.parent / "d"
    directory.mkdir()
    sink = FileSink(str(directory / "log"))
    sink.open()
    moved = directory.rename(log_path.parent / "moved")
    with pytest.raises(FileNotFoundError):
        sink.open()
    sink.write(memoryview(LINE))
    sink.close()
    assert (moved / "log").read_bytes() == LINE


def test_torn_last_line_of_an_earlier_run_is_ended(log_path: Path) -> None:
    log_path.write_bytes(b'{"line":0}\n{"li')
    sink = FileSink(str(log_path))
    sink.open()
    sink.write(memoryview(LINE))
    sink.close()
    assert log_path.read_bytes().splitlines() == [b'{"line":0}', b'{"li', b'{"line":1}']


def test_named_pipe_without_a_reader_is_an_error_not_a_wait(log_path: Path) -> None:
    os.mkfifo(log_path)
    sink = FileSink(str(log_path))
    with pytest.raises(OSError, match="No such device"):
        sink.open()
    reader = os.open(log_path, os.O_RDONLY | os.O_NONBLOCK)
    sink.open()
    assert len(fill(sink, LINE * 100)) >= 4096
    os.close(reader)
    sink.close()


def test_device_without_space_is_an_error() -> None:
    sink = FileSink("/dev/full")
    sink.open()
    with pytest.raises(OSError, match="No space left"):
        sink.write(memoryview(LINE))
    sink.close()


def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def without_proc(path: str, *args: int) -> int:
        if path.startswith("/proc/"):
            raise FileNotFoundError(path)
        return real(path, *args)

    monkeypatch.setattr("llmproxy.telemetry.sink.os.open", without_proc)


@pytest.mark.parametrize("proc", [True, False])
def test_full_pipe_takes_nothing_and_is_not_waited_for(
    pipe: tuple[int, int], proc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not proc:
        no_proc(monkeypatch)
    reader, writer = pipe
    sink = DescriptorSink(writer)
    assert not sink.open()
    taken = fill(sink, LINE * 800)
    sink.wait(0)
    assert sink.write(memoryview(LINE)) == 0
    got = os.read(reader, 1 << 20)
    assert got == taken
    sink.wait(60)
    assert sink.write(memoryview(LINE)) == len(LINE)
    sink.close()
    assert os.read(reader, 100) == LINE


def test_shared_pipe_stays_blocking_for_its_other_users(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    sink = DescriptorSink(writer)
    fill(sink, LINE * 800)
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    sink.close()


def test_full_socket_takes_nothing_and_stays_blocking() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = DescriptorSink(ours.fileno())
        sink.open()
        taken = fill(sink, LINE * 800)
        assert theirs.recv(len(taken), socket.MSG_WAITALL) == taken
        sink.wait(60)
        assert sink.write(memoryview(LINE)) == len(LINE)
        assert not fcntl.fcntl(ours.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
        sink.close()


def test_stuck_terminal_takes_nothing() -> None:
    leader, follower = pty.openpty()
    sink = DescriptorSink(follower)
    sink.open()
    assert fill(sink, LINE * 100)
    sink.close()
    os.close(leader)
    os.close(follower)


@pytest.mark.parametrize("kind", [os.pipe, lambda: tuple(end.detach() for end in socket.socketpair())])
def test_reader_that_left_is_an_error(kind: Callable[[], tuple[int, int]]) -> None:
    reader, writer = kind()
    sink = DescriptorSink(writer)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        sink.write(memoryview(LINE))
    sink.close()
    os.close(writer)


def test_descriptor_closed_before_the_start_is_an_error_and_never_somebody_elses(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(writer)
    sink = DescriptorSink(writer)
    again = os.dup(reader)  # takes the free number, as a client's connection would
    with pytest.raises(OSError, match="closed"):
        sink.open()
    sink.close()
    os.close(again)


def test_descriptor_closed_after_the_start_stays_ours(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = DescriptorSink(writer)
    os.close(writer)
    assert sink.write(memoryview(LINE)) == len(LINE)
    sink.close()
    assert os.read(reader, 100) == LINE


def test_standard_output_when_there_is_no_file(log_path: Path) -> None:
    default = sink_for(None)
    assert default.name == "standard output"
    default.close()
    assert sink_for(str(log_path)).name == str(log_path)
