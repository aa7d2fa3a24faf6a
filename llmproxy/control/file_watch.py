"""Have the files changed that the configuration was made from, and has whoever writes them finished?

Looked at by name every time, so that editors that write a new file and rename it, and Kubernetes, which turns a
symlink to another directory, are seen. A change counts once two looks in a row see the same content, so that a file
caught half-written is not taken; a missing file is no change. What a file says is compared, not when it was saved.

Which files there are is learnt from reading: a configuration names others (certificates, keys, secrets), and may name
different ones the next time.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

_READ_MAX_BYTES = 4 * 1024**2
"""Longer than any file that a configuration may name."""
_Stamp = tuple[int, int, int, int]
_Digests = dict[Path, str | None]


class FileWatch:
    """Watches files together. Give it those that are known before they are first read, or let it see the reading:

    with watch.reading() as about_to_read:
        about_to_read(path)
        path.read_text()

    Either way no change falls in between. May be used by several threads.
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._lock = Lock()
        self._watch({path: _digest(path) for path in paths}, {})

    @contextmanager
    def reading(self) -> Iterator[Callable[[Path], None]]:
        """Around a reading of all files; it gives a function to call with each, before it is opened.

        Afterwards these are the files that are watched, as they were then. If the reading fails, so are those it did
        not come to."""
        read: _Digests = {}
        stamps: dict[Path, _Stamp | None] = {}

        def about_to_read(path: Path) -> None:
            if path not in read:
                stamps[path] = _stamp(path)
                read[path] = _digest(path)

        try:
            yield about_to_read
        except BaseException:
            with self._lock:
                self._watch(self._settled | read, self._stamps | stamps)
            raise
        with self._lock:
            self._watch(read, stamps)

    def look(self) -> bool:
        """True when the files have settled on content other than last time this was True. Blocks on the disk."""
        with self._lock:
            return self._look()

    def _watch(self, digests: _Digests, stamps: dict[Path, _Stamp | None]) -> None:
        self._settled = digests
        self._stamps = stamps
        self._candidate: _Digests | None = None

    def _look(self) -> bool:
        stamps = {path: _stamp(path) for path in self._settled}
        if self._candidate is None and stamps == self._stamps:
            return False
        self._stamps = stamps
        found = {path: _digest(path) or before for path, before in self._settled.items()}
        if found == self._settled:
            self._candidate = None
            return False
        if found != self._candidate:
            self._candidate = found
            return False
        self._settled, self._candidate = found, None
        return True


def _digest(path: Path) -> str | None:
    """What the file says; None when there is none."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.sha256(file.read(_READ_MAX_BYTES)).hexdigest()
    except (OSError, ValueError):
        return None


def _stamp(path: Path) -> _Stamp | None:
    """What changes whenever the file does: cheap to look at, and only then is the content read."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
