"""A real redis-server of a test's own: on a free port, in a folder of its own; frozen, killed and started anew."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

MISSING = "redis-server is not installed: `sh tests/needs.sh` installs it where it can"

_COMMAND = ("redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")


def is_installed() -> bool:
    return shutil.which("redis-server") is not None


def _debugging() -> list[str]:
    """DEBUG SLEEP has to be allowed since Redis 7, which is when the option came."""
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return ["--enable-debug-command", "yes"] if int(version.partition("v=")[2].split(".")[0]) >= 7 else []


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class RedisServer:
    """`with RedisServer(folder) as server:`. The port stays the same over `kill` and `start`."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self.port = 0
        self._clients: list[Any] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> "RedisServer":
        for _ in range(5):
            self.port = _free_port()
            try:
                self.start()
            except OSError:
                # Somebody else was given the port in between.
                continue
            return self
        raise AssertionError(f"redis-server does not start: {self._log()}")

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self.kill()

    def start(self) -> None:
        with (self._folder / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*_COMMAND, *_debugging(), "--port", str(self.port), "--dir", str(self._folder), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise OSError(f"redis-server ended: {self._log()}")
            with contextlib.suppress(redis.RedisError):
                # Its own answer, not that of another server that was there first.
                if self.client().info("server")["process_id"] == self._process.pid:
                    return
            time.sleep(0.005)
        raise AssertionError(f"redis-server does not answer: {self._log()}")

    def client(self) -> Any:
        client = redis.Redis(port=self.port, socket_timeout=60)
        self._clients.append(client)
        return client

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self._frozen = False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _log(self) -> str:
        return (self._folder / "redis.log").read_text(errors="replace")[-2000:]
