"""Each backend's connections, with the header lines that are the same for all of its requests."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

from llmproxy.core.backend import Backend
from llmproxy.wire.connections import ConnectionPool, Resolve
from llmproxy.wire.deadlines import Deadlines


class Link:
    """What sending to one backend takes."""

    __slots__ = ("authorities", "base_path", "connections", "host_line", "id_line")

    def __init__(self, backend: Backend, connections: ConnectionPool, authorities: bytes) -> None:
        spec = backend.spec
        default_port = 443 if spec.tls else 80
        host = f"[{spec.host}]" if ":" in spec.host else spec.server_name or spec.host
        authority = host if spec.port == default_port else f"{host}:{spec.port}"
        self.connections = connections
        self.authorities = authorities
        """What the CA file said when its connections were told whom to trust."""
        self.base_path = spec.base_path.encode()
        self.host_line = b"Host: %b\r\n" % authority.encode("idna" if not authority.isascii() else "ascii")
        self.id_line = b"X-LLMProxy-Backend: %b\r\n" % spec.id.encode()


class Links:
    """Backend -> link, opened at first use, closed when the backend leaves the fleet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        deadlines: Deadlines,
        resolve: Resolve | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._deadlines = deadlines
        self._resolve = resolve
        self._links: dict[Backend, Link] = {}
        self._closing: list[Link] = []
        self._connects_before = 0

    def of(self, backend: Backend, connect_s: float, keepalive_s: float) -> Link:
        """The backend's link. The bounds are taken at the first call, or by `configure`."""
        link = self._links.get(backend)
        if link is None:
            link = self._links[backend] = self._open(backend, connect_s, keepalive_s)
        return link

    def configure(self, backends: Iterable[tuple[Backend, float, float]]) -> None:
        """The fleet's backends after a reload, with their `(connect_s, keepalive_s)`. Others' links are closed, and so
        are those whose CA file changed: the next request opens a new one."""
        kept = {}
        for backend, connect_s, keepalive_s in backends:
            link = self._links.get(backend)
            if link is not None and _authorities(backend) in (link.authorities, b""):
                link.connections.connect_s = connect_s
                link.connections.keepalive_s = keepalive_s
                kept[backend] = self._links.pop(backend)
        for link in self._links.values():
            link.connections.close()
        self._closing += self._links.values()
        self._links = kept
        self._forget_closed()

    def close(self) -> None:
        """Close everything idle."""
        self.configure(())

    def totals(self) -> tuple[int, int]:
        """Upstream connections open now, and opened ever."""
        self._forget_closed()
        pools = [link.connections for link in (*self._links.values(), *self._closing)]
        return sum(pool.open for pool in pools), self._connects_before + sum(pool.connects for pool in pools)

    def _forget_closed(self) -> None:
        self._connects_before += sum(link.connections.connects for link in self._closing if not link.connections.open)
        self._closing = [link for link in self._closing if link.connections.open]

    def _open(self, backend: Backend, connect_s: float, keepalive_s: float) -> Link:
        spec = backend.spec
        authorities = _authorities(backend)
        tls = ssl.create_default_context(cafile=spec.ca_file) if spec.tls else None
        connections = ConnectionPool(
            spec.host,
            spec.port,
            loop=self._loop,
            clock=self._clock,
            deadlines=self._deadlines,
            resolve=self._resolve,
            tls=tls,
            server_name=spec.server_name or None,
            connect_s=connect_s,
            keepalive_s=keepalive_s,
        )
        return Link(backend, connections, authorities)


def _authorities(backend: Backend) -> bytes:
    """A digest of the CA file; empty when there is none, or none to be read just now."""
    if backend.spec.ca_file is None:
        return b""
    try:
        return hashlib.sha256(Path(backend.spec.ca_file).read_bytes()).digest()
    except OSError:
        return b""
