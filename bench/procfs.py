"""What the kernel knows of a process tree: its members, the CPU it used, the memory it holds."""

import os
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def descendants(root: int) -> list[int]:
    """`root` and every process below it that is alive."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _ticks_s(pid: int) -> float:
    """utime + stime of all threads, dead ones too; in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _threads_s(pid: int) -> dict[str, float]:
    """Run time of each living thread, to the nanosecond; empty where the kernel does not keep it."""
    found: dict[str, float] = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found[task] = int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
    return found


class CpuMeter:
    """CPU seconds of a process tree since the meter was made.

    Threads are read singly because `stat` counts in steps of 10 ms; where a thread died meanwhile, its time is only in
    `stat`, so that is used for its process.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._before = {pid: (_ticks_s(pid), _threads_s(pid)) for pid in descendants(root)}

    def used_s(self) -> float:
        total = 0.0
        for pid in descendants(self._root):
            ticks_before, threads_before = self._before.get(pid, (0.0, {}))
            ticks, threads = _ticks_s(pid), _threads_s(pid)
            if threads and threads_before.keys() <= threads.keys():
                total += sum(used - threads_before.get(thread, 0.0) for thread, used in threads.items())
            else:
                total += ticks - ticks_before
        return total


def resident_bytes(root: int) -> int:
    """Resident memory of a process tree, shared pages counted once (PSS; RSS where the kernel has no PSS)."""
    total = 0
    for pid in descendants(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0) * 1024
    return total


class CoreMeter:
    """Busy seconds of one core since the meter was made, whoever used it."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._before = self._busy_s()

    def _busy_s(self) -> float:
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name == f"cpu{self._core}":
                user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
                return (user + nice + system + irq + softirq + steal) * _TICK_S
        return 0.0

    def used_s(self) -> float:
        return self._busy_s() - self._before
