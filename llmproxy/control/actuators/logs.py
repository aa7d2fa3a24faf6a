"""Engines' logs: one file each, of bounded size, of which the newest outlast their engines."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

_KEPT: Final = 20


class Logs:
    """Those in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, id: str) -> Path:
        return self._folder / f"{id}.log"

    def begin(self, id: str, known: Collection[str]) -> Path:
        """The file for a new engine. Of those of engines long gone the newest are kept, to find out why they went."""
        self._folder.mkdir(exist_ok=True)
        names = {self.of(one).name for one in known}
        old = [file for file in self._folder.glob("*.log*") if file.name.removesuffix(".1") not in names]
        for file in sorted(old, key=lambda file: file.stat().st_mtime, reverse=True)[_KEPT:]:
            file.unlink(missing_ok=True)
        return self.of(id)


def trim_log(file: Path, max_bytes: int) -> None:
    """Keep a log that its writer never reopens below a size: what is there goes to `.1`, and it begins anew. The
    writer appends (O_APPEND), so it goes on at the new end."""
    try:
        if file.stat().st_size <= max_bytes:
            return
        with file.open("rb+") as log:
            log.seek(-max_bytes, os.SEEK_END)
            # The writer may go on meanwhile.
            file.with_suffix(".log.1").write_bytes(log.read()[-max_bytes:])
            log.truncate(0)
    except OSError:
        return


def last_words(file: Path, lines: int = 3) -> str:
    """The end of a log, for a message."""
    try:
        with file.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(log.tell() - 2000, 0))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    said: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(said[-lines:])
