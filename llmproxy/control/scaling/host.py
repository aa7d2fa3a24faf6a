"""CPU and memory as shares: of what the control group may use where it is limited, else of the machine."""

from pathlib import Path

from llmproxy.control.scaling.cgroup import Cgroup

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


class Host:
    """`cpu` is about the time since it was asked before. None means unknown (no Linux)."""

    def __init__(self, proc: Path = _PROC, cgroup: Path = _CGROUP) -> None:
        self._proc = proc
        self._cgroup = Cgroup(proc, cgroup)
        self._before: tuple[bool, float, float] | None = None
        """Whether it was the group's, what had been used, and of how much."""
        self._could_use_s = 0.0
        self._asked_at: float | None = None

    def cpu(self, now: float) -> float | None:
        """Share that was busy; None the first time."""
        asked_at, self._asked_at = self._asked_at, now
        limited = self._cgroup.cpu()
        if limited is not None:
            used_s, cores = limited
            self._could_use_s += cores * max(now - asked_at, 0.0) if asked_at is not None else 0.0
            return self._since(True, used_s, self._could_use_s)
        try:
            fields = (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
            ticks = [float(field) for field in fields]
            return self._since(False, sum(ticks) - ticks[3] - ticks[4], sum(ticks))
        except (OSError, ValueError, IndexError):
            return None

    def memory(self) -> float | None:
        """Share in use."""
        limited = self._cgroup.memory()
        if limited is not None:
            return limited
        try:
            rows = dict(line.split(":", 1) for line in (self._proc / "meminfo").read_text().splitlines())
            total, free = (float(rows[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        except (OSError, ValueError, KeyError, IndexError):
            return None
        return 1.0 - free / total if total else None

    def _since(self, is_limited: bool, used: float, of: float) -> float | None:
        before, self._before = self._before, (is_limited, used, of)
        if before is None or before[0] is not is_limited or of <= before[2]:
            return None
        # A group may use more than its quota for a moment (burst).
        return min(max((used - before[1]) / (of - before[2]), 0.0), 1.0)
