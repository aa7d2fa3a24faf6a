"""CPU and memory of this machine or its container, as shares."""

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


class Host:
    """`cpu` is about the time since it was asked before. None means unknown (no Linux)."""

    def __init__(self, proc: Path = _PROC, cgroup: Path = _CGROUP) -> None:
        self._proc = proc
        self._cgroup = cgroup
        self._before: tuple[float, float] | None = None

    def cpu(self) -> float | None:
        """Share of all cores that was busy; None the first time."""
        try:
            fields = (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
            ticks = [float(field) for field in fields]
        except (OSError, ValueError):
            return None
        total, idle = sum(ticks), ticks[3] + ticks[4]
        before, self._before = self._before, (total, idle)
        if before is None or total <= before[0]:
            return None
        return 1.0 - (idle - before[1]) / (total - before[0])

    def memory(self) -> float | None:
        """Share in use: of the container's limit where it has one."""
        try:
            limit = (self._cgroup / "memory.max").read_text().strip()
            if limit != "max":
                return float((self._cgroup / "memory.current").read_text()) / float(limit)
        except (OSError, ValueError, ZeroDivisionError):
            pass
        try:
            rows = dict(line.split(":", 1) for line in (self._proc / "meminfo").read_text().splitlines())
            total, free = (float(rows[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        except (OSError, ValueError, KeyError, IndexError):
            return None
        return 1.0 - free / total if total else None
