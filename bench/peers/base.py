"""What the bench needs to know of a proxy: what is missing to run it, how it is started, where it answers."""

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

VENVS = Path(__file__).resolve().parent.parent / ".peers"
"""Where `python -m bench.install` puts peers that come from PyPI, a virtual environment each (ignored by git)."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a peer is to run: its own empty directory, its ports, and the upstreams in front of which it stands."""

    room: Path
    port: int
    metrics_port: int
    upstream_ports: Sequence[int]

    @property
    def upstream_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.upstream_ports]

    def write(self, name: str, text: str) -> str:
        """Write a file into the room and return its path."""
        path = self.room / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Start:
    """A command to run, and where its metrics are (scraped once a second while it is measured)."""

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    metrics_path: str | None = None


class Peer(ABC):
    """One proxy under test."""

    name: str
    share: float = 1.0
    """The part of the full load that it can take; a slow peer gets less, and CPU per unit of work is compared."""
    start_s: float = 20.0
    """How long it may take to answer its first request."""

    @abstractmethod
    def missing(self) -> str | None:
        """How to install it, or None when it is there."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def prepare(self, site: Site) -> Start:
        """Write its configuration into `site.room` and say how to start it. It must stay in the foreground."""


def find(command: str) -> str | None:
    """A program on the path, where distributions also put servers outside a user's path."""
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")


def first_line(*command: str) -> str:
    """The first line a program prints of its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().partition("\n")[0]


class VenvPeer(Peer):
    """A peer that `python -m bench.install` installs from PyPI."""

    package: str
    install_option: str = ""

    @property
    def program(self) -> Path:
        return VENVS / self.package / "bin" / self.package

    def missing(self) -> str | None:
        if self.program.exists():
            return None
        return f"python -m bench.install {self.install_option}".strip()

    def version(self) -> str:
        code = f"import importlib.metadata as m; print(m.version({self.package!r}))"
        return first_line(str(VENVS / self.package / "bin" / "python"), "-c", code)
