"""Has a file changed, and has whoever writes it finished?

Looked at by name every time, so that editors that write a new file and rename it, and Kubernetes, which turns a
symlink to another directory, are seen. A change counts once two looks in a row see the same content, so that a file
caught half-written is not taken; a missing file is no change. What a file says is compared, not when it was saved.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

_Stamp = tuple[int, int, int, int]


class FileWatch:
    """Watches files together. Make one before the files are first read, so that no change falls in between."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._stamps = self._stamp()
        self._settled = self._digest()
        self._candidate: str | None = None

    def look(self) -> bool:
        """True when the files have settled on content other than last time this was True. Blocks on the disk."""
        stamps = self._stamp()
        if self._candidate is None and stamps == self._stamps:
            return False
        self._stamps = stamps
        digest = self._digest()
        if digest is None or digest == self._settled:
            self._candidate = None
            return False
        if digest != self._candidate:
            self._candidate = digest
            return False
        self._settled, self._candidate = digest, None
        return True

    def _stamp(self) -> tuple[_Stamp | None, ...]:
        return tuple(_stamp(path) for path in self._paths)

    def _digest(self) -> str | None:
        digest = hashlib.sha256()
        for path in self._paths:
            try:
                content = path.read_bytes()
            except OSError:
                return None
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()


def _stamp(path: Path) -> _Stamp | None:
    """What changes whenever the file does: cheap to look at, and only then is the content read."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
