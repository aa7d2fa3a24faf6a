"""What is written in C: the upstream stub, the load generator and the launcher, compiled at the start of a run."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
_SOURCES = {"stub": "stub/*.c", "load": "load/*.c", "launch": "native/launch.c"}


class CompilerMissing(Exception):
    """There is no C compiler; nothing can be measured."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the compiled programs."""

    stub: Path
    load: Path
    launch: Path


def compile_programs(into: Path) -> Programs:
    """Compile everything into the directory `into` (about a second)."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise CompilerMissing("the load generator is written in C and needs a compiler: apt-get install gcc libc6-dev")
    for name, pattern in _SOURCES.items():
        sources = [str(path) for path in sorted(BENCH.glob(pattern))]
        subprocess.run([compiler, "-O2", "-Wall", "-o", str(into / name), *sources], check=True)
    return Programs(into / "stub", into / "load", into / "launch")
