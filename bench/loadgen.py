"""Driving the load generator: one process a run, pinned to the load core, which reports in JSON lines."""

import json
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import Process, stop

Report = dict[str, Any]
_SLACK_S = 10.0


class LoadFailed(Exception):
    """The load generator died or said nothing in time."""


class Held:
    """Open streams, paced by the upstream, until the block ends."""

    def __init__(self, process: Process, limit_s: float) -> None:
        self._process = process
        self._limit_s = limit_s
        self.final: Report = {}

    def read(self) -> Report:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], self._limit_s + _SLACK_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise LoadFailed("the load generator said nothing in time")
        report: Report = json.loads(line)
        return report

    def mark(self) -> Report:
        """Counters since the start; `gap_us` since the last mark."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self.read()


@dataclass(frozen=True, slots=True)
class LoadGenerator:
    """The compiled program and the core it runs on."""

    program: Path
    launch: Path
    core: int

    def _start(self, mode: str, options: dict[str, float]) -> Process:
        arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")]
        return subprocess.Popen(
            [str(self.launch), str(self.core), str(self.program), mode, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )

    def run(self, mode: str, *, limit_s: float = 30.0, **options: float) -> Report:
        """Run `closed`, `open` or `burst` to its end and return what it saw."""
        process = self._start(mode, {"limit": limit_s, **options})
        try:
            output, _ = process.communicate(timeout=limit_s + _SLACK_S)
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"{mode}: no result after {limit_s:g} s") from error
        finally:
            stop(process)
        if process.returncode:
            raise LoadFailed(f"{mode}: the load generator ended with {process.returncode}")
        report: Report = json.loads(output)
        return report

    @contextmanager
    def hold(self, *, limit_s: float = 60.0, **options: float) -> Iterator[Held]:
        """Open `clients` streams and hold them; the block starts when each has had its first event."""
        process = self._start("hold", {"limit": limit_s, **options})
        try:
            held = Held(process, limit_s)
            opened = held.read()
            if opened["event"] != "open":
                raise LoadFailed(f"not every stream opened: {_failures(opened)}")
            yield held
            assert process.stdin is not None
            process.stdin.close()
            held.final = held.read()
        finally:
            stop(process)


def _failures(report: Report) -> str:
    names = ("refused", "cut", "malformed", "bad_status", "short_streams", "unanswered")
    return ", ".join(f"{name} {report[name]}" for name in names if report[name]) or "none failed"


def check_all_answered(report: Report) -> Report:
    """Raise unless every request was answered as it should be: a figure over errors is no figure."""
    if report["ok"] != report["started"]:
        raise LoadFailed(f"{report['started'] - report['ok']} of {report['started']} failed: {_failures(report)}")
    return report
