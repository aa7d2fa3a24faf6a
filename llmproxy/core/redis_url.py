"""Where a Redis is: `redis://[user:password@]host[:port][/db]`, `rediss://` (TLS), `sentinel://host,host/master[/db]`
and `cluster://host,host`. Passwords are percent-encoded, as everywhere in URLs."""

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

_PORT = 6379
_SENTINEL_PORT = 26379
_SCHEMES = ("redis", "rediss", "sentinel", "cluster")
_OPTIONS = ("tls", "ca", "sentinel_password")


class Topology(Enum):
    """What answers at the addresses."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """`addresses` are the server's, the sentinels' or those of some nodes of the cluster."""

    topology: Topology
    addresses: tuple[tuple[str, int], ...]
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: bool = False
    ca_file: str = ""
    """PEM file of the authorities to verify TLS with; empty: the system's."""
    master: str = ""
    """The name the sentinels know it by."""
    sentinel_password: str = field(default="", repr=False)


def parse_redis_url(url: str) -> RedisUrl:
    """Raises ValueError, which never shows the URL: it may hold a password."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError("must begin with redis://, rediss://, sentinel:// or cluster://")
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    options = dict(parse_qsl(parts.query))
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise ValueError(f"unknown option {unknown[0]!r} after the ?; there are {', '.join(_OPTIONS)}")
    topology = Topology.SINGLE if scheme.startswith("redis") else Topology(scheme)
    addresses = tuple(_address(host, _SENTINEL_PORT if scheme == "sentinel" else _PORT) for host in hosts.split(","))
    if topology is Topology.SINGLE and len(addresses) > 1:
        raise ValueError("names several hosts: write sentinel:// or cluster:// for those")
    path = [unquote(part) for part in parts.path.split("/") if part]
    master = ""
    if topology is Topology.SENTINEL:
        if not path:
            raise ValueError("lacks the master's name: sentinel://host:26379/mymaster")
        master = path.pop(0)
    if len(path) > 1 or (path and not path[0].isdecimal()):
        raise ValueError("has more behind the host than the number of a database")
    database = int(path[0]) if path else 0
    if topology is Topology.CLUSTER and database:
        raise ValueError("names a database, but a cluster has only database 0")
    return RedisUrl(
        topology,
        addresses,
        unquote(username),
        unquote(password),
        database,
        scheme == "rediss" or options.get("tls", "").lower() in ("1", "true", "yes"),
        options.get("ca", ""),
        master,
        options.get("sentinel_password", ""),
    )


def _address(text: str, default_port: int) -> tuple[str, int]:
    host, port = text, str(default_port)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else port
    elif ":" in text:
        host, _, port = text.rpartition(":")
    if not host:
        raise ValueError("has no host")
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError("has no usable port")
    return host, int(port)
