"""Where the access log's bytes go: a file, or standard output. Writing never waits for a reader.

A pipe or terminal is opened a second time through /proc, because O_NONBLOCK on the inherited descriptor would also
change it for every other process that shares it. What cannot be opened so (no /proc, no permission) is polled and
written in pieces of PIPE_BUF, which a writable pipe takes whole. A regular file can still block (a hung network disk):
that is why a thread of its own writes.
"""

import contextlib
import os
import select
import socket
import stat
from typing import Protocol

_PIECE_BYTES = select.PIPE_BUF
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
_LOG_MODE = 0o640


class Sink(Protocol):
    """Used by one thread. Every method may raise OSError."""

    @property
    def name(self) -> str:
        """For messages."""

    def open(self) -> bool:
        """Open, or open again after a rotation; True when bytes now go to another file than before. When it fails,
        what was open stays in use."""

    def write(self, data: memoryview) -> int:
        """Write as much as fits now and return how much; 0 when nothing does."""

    def wait(self, timeout_s: float) -> None:
        """Return when there may be room, or after `timeout_s`."""

    def close(self) -> None: ...


class FileSink:
    """A file that is appended to (or a named pipe)."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._fd = -1

    def open(self) -> bool:
        fd = os.open(self.name, _APPEND, _LOG_MODE)
        self.close()
        self._fd = fd
        _end_torn_line(self.name, fd)
        return True

    def write(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def wait(self, timeout_s: float) -> None:
        _wait(self._fd, timeout_s)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class DescriptorSink:
    """An inherited descriptor: standard output. `open` again changes nothing, its owner rotates it."""

    def __init__(self, fd: int = 1, name: str = "standard output") -> None:
        self.name = name
        # Held from the start: descriptor 1 closed later could come back as somebody's connection.
        self._fd = -1
        self._socket: socket.socket | None = None
        self._piecewise = False
        with contextlib.suppress(OSError):
            self._take(fd)

    def open(self) -> bool:
        if self._fd < 0 and self._socket is None:
            raise OSError("it is closed")
        return False

    def write(self, data: memoryview) -> int:
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT)
            if self._piecewise:
                if not _wait(self._fd, 0):
                    return 0
                data = data[:_PIECE_BYTES]
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def wait(self, timeout_s: float) -> None:
        _wait(self._fd if self._socket is None else self._socket.fileno(), timeout_s)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _take(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            return
        if not stat.S_ISREG(mode):
            with contextlib.suppress(OSError):
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                return
        self._piecewise = not stat.S_ISREG(mode)
        self._fd = os.dup(fd)


def sink_for(path: str | None) -> Sink:
    """The file at `path`, or standard output."""
    return DescriptorSink() if path is None else FileSink(path)


def _wait(fd: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    # Errors count as writable: the write then says which.
    return bool(poller.poll(timeout_s * 1000))


def _end_torn_line(path: str, fd: int) -> None:
    """A full disk or a crash may have left half a line: end it, so that it spoils only itself."""
    with contextlib.suppress(OSError):
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            with open(path, "rb") as file:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            if torn:
                os.write(fd, b"\n")
