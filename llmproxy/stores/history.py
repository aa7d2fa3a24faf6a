"""What the autoscaler must not forget: demand by the minute, for the forecast (a season is too long to be learned again
after every restart), and single facts such as what was spent."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

Point = tuple[int, tuple[float | None, ...]]
"""A minute (Unix time over 60) and its figures, in an order the caller keeps to."""

_FIGURES_MAX: Final = 3
_CREATE: Final[tuple[str, ...]] = (
    "CREATE TABLE IF NOT EXISTS demand_minutes"
    " (pool TEXT NOT NULL, minute INTEGER NOT NULL, a REAL, b REAL, c REAL, PRIMARY KEY (pool, minute)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS facts"
    " (pool TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (pool, name)) WITHOUT ROWID",
)


class HistoryError(Exception):
    """The store cannot be read or written; the message says why."""


class HistoryStore(Protocol):
    """Minutes and facts by pool. Blocking: call it from a thread."""

    def read(self, pool: str, since_minute: int) -> list[Point]:
        """From `since_minute` on, in order. Raises `HistoryError`."""

    def append(self, pool: str, points: Sequence[Point], forget_before_minute: int) -> None:
        """Add or replace, and drop what is older. Raises `HistoryError`."""

    def fact(self, pool: str, name: str) -> str | None:
        """What was remembered under `name`. Raises `HistoryError`."""

    def remember(self, pool: str, name: str, value: str | None) -> None:
        """Instead of what was remembered before; None forgets it. Raises `HistoryError`."""

    def close(self) -> None:
        """Nothing is asked any more."""


class MemoryHistory:
    """Lasts as long as the process."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[int, tuple[float | None, ...]]] = {}
        self._facts: dict[tuple[str, str], str] = {}

    def read(self, pool: str, since_minute: int) -> list[Point]:
        return sorted(
            (minute, figures) for minute, figures in self._pools.get(pool, {}).items() if minute >= since_minute
        )

    def append(self, pool: str, points: Sequence[Point], forget_before_minute: int) -> None:
        kept = {**self._pools.get(pool, {}), **dict(points)}
        self._pools[pool] = {minute: figures for minute, figures in kept.items() if minute >= forget_before_minute}

    def fact(self, pool: str, name: str) -> str | None:
        return self._facts.get((pool, name))

    def remember(self, pool: str, name: str, value: str | None) -> None:
        if value is None:
            self._facts.pop((pool, name), None)
        else:
            self._facts[pool, name] = value

    def close(self) -> None:
        """There is nothing to close."""


class SqliteHistory:
    """A file; several processes may share it. A connection a call: once a minute, that is nothing, and no thread is
    bound to it."""

    def __init__(self, path: Path, timeout_s: float = 5.0) -> None:
        self._path, self._timeout_s = path, timeout_s

    def read(self, pool: str, since_minute: int) -> list[Point]:
        if not self._path.exists():
            # Who only wants to know (`llmproxy plan`) makes no file.
            return []
        query = "SELECT minute, a, b, c FROM demand_minutes WHERE pool = ? AND minute >= ? ORDER BY minute"
        try:
            with closing(self._open()) as connection:
                rows = connection.execute(query, (pool, since_minute)).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(f"{self._path}: {error}") from None
        return [(minute, tuple(figures)) for minute, *figures in rows]

    def append(self, pool: str, points: Sequence[Point], forget_before_minute: int) -> None:
        rows = [(pool, minute, *(*figures, None, None, None)[:_FIGURES_MAX]) for minute, figures in points]
        try:
            with closing(self._open()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO demand_minutes VALUES (?, ?, ?, ?, ?)", rows)
                connection.execute(
                    "DELETE FROM demand_minutes WHERE pool = ? AND minute < ?", (pool, forget_before_minute)
                )
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(f"{self._path}: {error}") from None

    def fact(self, pool: str, name: str) -> str | None:
        try:
            with closing(self._open()) as connection:
                row = connection.execute("SELECT value FROM facts WHERE pool = ? AND name = ?", (pool, name)).fetchone()
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(f"{self._path}: {error}") from None
        return None if row is None else str(row[0])

    def remember(self, pool: str, name: str, value: str | None) -> None:
        try:
            with closing(self._open()) as connection, connection:
                if value is None:
                    connection.execute("DELETE FROM facts WHERE pool = ? AND name = ?", (pool, name))
                else:
                    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (pool, name, value))
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(f"{self._path}: {error}") from None

    def close(self) -> None:
        """Connections are closed after each call."""

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self._path, timeout=self._timeout_s)
        try:
            for statement in _CREATE:
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        return connection
