"""The append-only log of what was changed about scaling, by whom and why: one JSON object a line."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_log = logging.getLogger("llmproxy.audit")


class Audit:
    """Each entry also goes to the proxy's own log. Without a file only there."""

    def __init__(self, file: Path | None, wall: Callable[[], float]) -> None:
        self._file = file
        self._wall = wall

    def write(self, who: str, what: str, why: str, **facts: Any) -> None:
        """One entry, written through before this returns. It never fails the change it tells of: what cannot be
        written is in the log."""
        entry = {"at": round(self._wall(), 3), "who": who, "what": what, "why": why, **facts}
        # In ASCII: half a surrogate pair is in JSON, and cannot be written otherwise.
        line = json.dumps(entry)
        _log.info("%s", line)
        if self._file is None:
            return
        try:
            handle = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                # One write: lines of several proxies do not mix.
                text = (b"\n" if _is_torn(handle) else b"") + line.encode() + b"\n"
                written = os.write(handle, text)
                if written < len(text):
                    raise OSError(f"only {written} of {len(text)} bytes of an entry were taken")
            finally:
                os.close(handle)
        except OSError as error:
            _log.error("the audit log %s cannot be written: %s", self._file, error)


def _is_torn(handle: int) -> bool:
    """Whether the file ends within a line: the disk was full."""
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"
