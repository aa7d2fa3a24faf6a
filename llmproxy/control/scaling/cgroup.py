"""The control group that this process runs in (a container, a service): how much of the machine it may use, and how
much it does. Version 2, version 1, and both side by side.

Limits hold for a group and all below it, so those above this process's own count as well. In a container the paths in
/proc may be those of the machine; then what is mounted is the container's group itself. What cannot be read is no
limit.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_UNLIMITED: Final = 2.0**60
"""Version 1 writes "none" as the highest page there is."""


class Cgroup:
    """Paths are found once, limits are read each time: they may be changed while it runs."""

    def __init__(self, proc: Path, root: Path) -> None:
        paths = _paths(proc)
        self._unified = _groups(root if (root / "cgroup.controllers").exists() else root / "unified", paths.get("", ""))
        self._cpu, self._memory = (
            _groups(_mounted(root, controller), paths.get(controller, "")) for controller in ("cpu", "memory")
        )
        self._cpuacct = _mounted(root, "cpuacct")
        self._cpu_root = _mounted(root, "cpu")

    def cpu(self) -> tuple[float, float] | None:
        """Of the group with the tightest quota: CPU seconds used so far, and how many cores' worth it may use. None
        where there is no quota."""
        found: list[tuple[float, Path, bool]] = []
        for group in self._unified:
            words = _words(group / "cpu.max")
            if len(words) == 2 and words[0] != "max":
                found += [(_number(words[0]) / (_number(words[1]) or 1.0), group, True)]
        for group in self._cpu:
            quota, period = _value(group / "cpu.cfs_quota_us"), _value(group / "cpu.cfs_period_us")
            if quota is not None and quota > 0 and period:
                found += [(quota / period, group, False)]
        if not found:
            return None
        cores, group, is_unified = min(found, key=lambda one: one[0])
        used_s = _stat(group / "cpu.stat", "usage_usec", 1e-6) if is_unified else self._accounted_s(group)
        return (used_s, cores) if used_s is not None and cores > 0 else None

    def memory(self) -> float | None:
        """Share of the limit in use, without what files leave behind that nobody has used lately; of several limits,
        the one that is nearest. None where there is none."""
        shares = []
        for group in self._unified:
            limit, used = _value(group / "memory.max"), _value(group / "memory.current")
            idle = _stat(group / "memory.stat", "inactive_file", 1.0)
            shares += _share(limit, used, idle)
        for group in self._memory:
            limit, used = _value(group / "memory.limit_in_bytes"), _value(group / "memory.usage_in_bytes")
            idle = _stat(group / "memory.stat", "total_inactive_file", 1.0)
            shares += _share(limit, used, idle)
        return max(shares, default=None)

    def _accounted_s(self, group: Path) -> float | None:
        """Version 1 counts in another hierarchy, which mostly has the same groups."""
        beside = self._cpuacct / group.relative_to(self._cpu_root) / "cpuacct.usage"
        used = _value(beside if beside.exists() else group / "cpuacct.usage")
        return None if used is None else used * 1e-9


def _paths(proc: Path) -> dict[str, str]:
    """By controller; version 2's without a name."""
    found: dict[str, str] = {}
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found.update(dict.fromkeys(controllers.split(","), path.strip("/")))
    return found


def _mounted(root: Path, controller: str) -> Path:
    together = root / "cpu,cpuacct"
    return together if controller.startswith("cpu") and together.is_dir() else root / controller


def _groups(mount: Path, path: str) -> list[Path]:
    """This process's and those above it, as far as they can be seen."""

    def upwards() -> Iterator[Path]:
        own = mount / path
        yield own
        for above in own.parents:
            if not above.is_relative_to(mount):
                return
            yield above

    return [group for group in upwards() if group.is_dir()]


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _value(file: Path) -> float | None:
    """The number in a file; None where there is none, or it says `max`."""
    words = _words(file)
    return _number(words[0]) if words and words[0] != "max" else None


def _stat(file: Path, name: str, unit: float) -> float | None:
    words = _words(file)
    return _number(words[words.index(name) + 1]) * unit if name in words[:-1] else None


def _share(limit: float | None, used: float | None, idle: float | None) -> list[float]:
    if limit is None or used is None or not 0 < limit < _UNLIMITED:
        return []
    return [max(used - (idle or 0.0), 0.0) / limit]
