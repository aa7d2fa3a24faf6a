"""The lines of a trace file, plain or packed, and what is wrong with them."""

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_GZIP = b"\x1f\x8b"
LINE_MAX_CHARS = 16 * 1024**2


class TraceError(Exception):
    """The file cannot be replayed. The message names the file and, where there is one, the line."""


class UnknownFormat(TraceError):
    """It is in none of the formats that are known."""


class LeftOut(Exception):
    """A good line that is no request to replay; the message is the reason."""


class Lines:
    """Reads a file line by line. `bad` counts the lines that could not be read, `first_bad` says what was wrong with
    the first of them; `left_out` counts good lines that are not replayed, by reason."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.bad = 0
        self.first_bad = ""
        self.left_out: Counter[str] = Counter()
        self._ahead: list[str] = []
        self._lines = _opened(path)

    def close(self) -> None:
        """Close the file, wherever in it the reader stands."""
        self._lines.close()

    def peek(self, count: int) -> list[str]:
        """The first `count` lines that are not empty, before any was taken."""
        while len(self._ahead) < count and (line := next(self._lines, None)) is not None:
            self._ahead.append(line)
        return [line for line in self._ahead if line.strip()]

    def take(self) -> str | None:
        """The next line that is not empty; None at the end."""
        while True:
            line = self._ahead.pop(0) if self._ahead else next(self._lines, None)
            if line is None:
                return None
            self.number += 1
            if line.strip():
                return line

    def until(self, wanted: Callable[[str], bool]) -> str:
        """The first line that is `wanted`; those before it are passed over. Empty when there is none."""
        while (line := self.take()) is not None:
            if wanted(line):
                return line
        return ""

    def parsed(self, parse: Callable[[str], T]) -> Iterator[T]:
        """What `parse` makes of each line. ValueError makes a line bad, `LeftOut` leaves it out."""
        while (line := self.take()) is not None:
            try:
                yield parse(line)
            except LeftOut as reason:
                self.left_out[str(reason)] += 1
            except ValueError as error:
                if not self.bad:
                    self.first_bad = f"{self.path}:{self.number}: {error}"
                self.bad += 1


def _opened(path: Path) -> Generator[str, None, None]:
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP
            source = gzip.GzipFile(fileobj=raw) if packed else raw
            with io.TextIOWrapper(source, encoding="utf-8-sig", errors="replace") as text:
                while line := text.readline(LINE_MAX_CHARS):
                    yield line.rstrip("\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"{path}: the file is packed and damaged: {error}") from None
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
