"""What the process actuator must not forget: one JSON file, replaced whole, written before a process is started and
again when its number is known. So whatever is killed at whatever moment, the next proxy finds every engine: by its
number and start, or by the mark in its environment."""

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llmproxy.control.actuators.base import ActuatorError
from llmproxy.control.actuators.processes import boot_id

VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One engine. `pid` is 0 while it is being started."""

    id: str
    mark: str
    port: int
    gpus: tuple[str, ...]
    command: str
    """A digest of the template it was started from."""
    started_unix_s: float
    pid: int = 0
    ticks: int = 0
    tier: str = ""


class Records:
    """The file, and the lock beside it that keeps two proxies from using one folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "replicas.json"
        self._lock: int | None = None

    def lock(self) -> None:
        """Raises `ActuatorError` when another process has the folder, or it cannot be made."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.unlock()
            taken = isinstance(error, BlockingIOError)
            why = "another proxy uses it" if taken else error.strerror
            raise ActuatorError(f"the folder {self._directory} cannot be used: {why}") from None

    def unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def read(self) -> list[Record]:
        """Those of this boot; none when there is no file, or none that can be read."""
        try:
            text = self._file.read_text()
            if not text:
                # The machine went down with it, and with all engines.
                return []
            content: Any = json.loads(text)
            if content["version"] != VERSION or content["boot"] != boot_id():
                return []
            known = {field.name for field in fields(Record)}
            rows = [{key: value for key, value in row.items() if key in known} for row in content["replicas"]]
            return [Record(**{**row, "gpus": tuple(row["gpus"])}) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ActuatorError(f"{self._file} cannot be read ({error}); remove it when no engine runs") from None

    def write(self, records: Iterable[Record]) -> None:
        """Replace the file. It need not reach the disk, which would keep the caller waiting: no engine outlives the
        machine."""
        content = {"version": VERSION, "boot": boot_id(), "replicas": [asdict(record) for record in records]}
        beside = self._file.with_suffix(".new")
        try:
            with beside.open("w") as file:
                json.dump(content, file, indent=1)
            beside.replace(self._file)
        except OSError as error:
            raise ActuatorError(f"{self._file} cannot be written: {error.strerror}") from None
