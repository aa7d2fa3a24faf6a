"""Processes by number: are they still who they were, and how to end a whole group. Linux only (/proc).

A process is known by its number, the tick in which it started and the boot: numbers are used again.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def boot_id() -> str:
    """Differs after each start of the machine; empty where it is not known."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def started_ticks(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot; None when there is no such process, or only a zombie of it."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (OSError, ValueError):
        return None
    # The name stands in parentheses and may hold anything, parentheses too.
    fields = stat[stat.rfind(")") + 2 :].split()
    return None if len(fields) < 20 or fields[0] in ("Z", "X") else int(fields[19])


def is_same(pid: int, ticks: int) -> bool:
    """Whether the process that started in that tick still runs."""
    return pid > 0 and started_ticks(pid) == ticks


def members(group: int) -> Iterator[int]:
    """The live processes of a group."""
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            stat = (entry / "stat").read_text()
            fields = stat[stat.rfind(")") + 2 :].split()
            if int(fields[2]) == group and fields[0] not in ("Z", "X"):
                yield int(entry.name)


def signal_group(group: int, number: signal.Signals) -> bool:
    """Send a signal to every process of a group. False when it has none any more."""
    if group <= 1:
        return False  # 0 would be our own group
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # The group's number belongs to somebody else by now.
        return False
    return True


def marked(name: str, value: str) -> int | None:
    """The process group leader of ours whose environment says `name=value`, found by looking at all."""
    wanted = f"{name}={value}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            if os.getpgid(pid) == pid and wanted in (entry / "environ").read_bytes().split(b"\0"):
                return pid
    return None
