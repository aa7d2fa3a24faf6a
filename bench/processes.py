"""Starting processes on a core and stopping them, by process id, on every way out."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.procfs import descendants

Process = subprocess.Popen[bytes]
_STOP_S = 3.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stop(process: Process) -> None:
    """SIGTERM, a short wait, SIGKILL for whatever of the tree is left."""
    tree = descendants(process.pid) if process.poll() is None else []
    if tree:
        process.terminate()
    deadline = time.monotonic() + _STOP_S
    while any(_alive(pid) for pid in tree) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.02)
    for pid in tree:
        if _alive(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running(
    command: Sequence[str],
    *,
    launch: Path,
    core: int,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run `command` on one core until the block ends; its output goes to the file `log`.

    In a session of its own, so that Ctrl-C reaches only the benchmark, which then stops its children in order; the
    launcher asks the kernel to end them should the benchmark be killed outright.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(launch), str(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)
