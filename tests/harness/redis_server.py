"""A real redis-server of a test's own: on a free port, in a folder of its own; frozen, killed and started anew."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from tests.harness.certificates import Authority

MISSING = "redis-server is not installed: `sh tests/needs.sh` installs it where it can"
TOO_OLD = "redis-server 7 or later is not installed: `sh tests/needs.sh` installs it where it can"
PORT_MAX = 55_000
"""Above the port of a cluster's node is its bus, at 10,000 more."""

_COMMAND = ("redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")


def is_installed() -> bool:
    return shutil.which("redis-server") is not None


def major_version() -> int:
    """Of the redis-server that is installed; 0 where none is."""
    if not is_installed():
        return 0
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.partition("v=")[2].split(".")[0])


def _debugging() -> list[str]:
    """DEBUG SLEEP has to be allowed since Redis 7, which is when the option came."""
    return ["--enable-debug-command", "yes"] if major_version() >= 7 else []


def _free_port() -> int:
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        if port <= PORT_MAX:
            return port


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Poll until `condition` gives something true, and return that. What Redis refuses counts as not yet."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, OSError):
            if found := condition():
                return found
        time.sleep(0.01)
    raise AssertionError(f"never came within {timeout_s:g} s: {what}")


class RedisServer:
    """`with RedisServer(folder) as server:`. The port stays the same over `kill` and `start`. With `authority` it
    speaks TLS and nothing else; `login` is the one user who may do anything."""

    def __init__(
        self, folder: Path, *options: str, authority: Authority | None = None, login: tuple[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._options = [*options]
        self._authority = authority
        self._login = login
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self.port = 0
        self._clients: list[Any] = []
        self._secure: dict[str, Any] = {}
        if authority is not None:
            shown = authority.issue(f"{folder.name}-client")
            self._secure = {"ssl": True, "ssl_ca_certs": str(authority.ca)}
            self._secure |= {"ssl_certfile": str(shown[0]), "ssl_keyfile": str(shown[1])}
            certificate, key = authority.issue(f"{folder.name}-server")
            self._options += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
            self._options += ["--tls-ca-cert-file", str(authority.ca), "--tls-auth-clients", "optional"]
        if login is not None:
            user, password = login
            self._options += ["--user", user, "on", f">{password}", "~*", "&*", "+@all", "--user", "default", "off"]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        tls = self._authority is not None
        user, password = (quote(part, safe="") for part in self._login or ("", ""))
        login = f"{user}:{password}@" if self._login else ""
        return f"redis{'s' * tls}://{login}{self.address}/0{f'?ca={self._authority.ca}' if self._authority else ''}"

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
        with (self.folder / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
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

    def command(self) -> list[str]:
        """How it is started."""
        ports = ["--port", "0", "--tls-port"] if self._authority is not None else ["--port"]
        return [*_COMMAND, *_debugging(), *ports, str(self.port), "--dir", str(self.folder), *self._options]

    def client(self) -> Any:
        user, password = self._login or (None, None)
        client = redis.Redis(port=self.port, socket_timeout=60, username=user, password=password, **self._secure)
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
        return (self.folder / "redis.log").read_text(errors="replace")[-2000:]
