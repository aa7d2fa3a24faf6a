"""Which machine and which code a result belongs to. No host names, no paths."""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where. The proxies have `proxy` to themselves."""

    proxy: int
    stub: int
    load: int


class TooFewCores(Exception):
    """The proxy and the load would share a core, and the figures would mean nothing."""


def choose_cores() -> Cores:
    """The last core for the proxies, the first for the load, the one between (if any) for the stub."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise TooFewCores("two cores are needed: one for the proxy, one for the load generator and the upstream stub")
    return Cores(proxy=cores[-1], stub=cores[1] if len(cores) > 2 else cores[0], load=cores[0])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def commit() -> str:
    """Short commit, with `-dirty` when tracked files differ; `unknown` outside a checkout."""
    head = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return (head or "unknown") + ("-dirty" if changed else "")


def describe() -> dict[str, Any]:
    memory_kib = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
