"""Where a Redis is: `redis://[user:password@]host[:port][/db]`, `rediss://` (TLS), `sentinel://host,host/master[/db]`
and `cluster://host,host`. Passwords are percent-encoded, as everywhere in URLs. Behind a `?`, joined by `&`: `tls=true`
where the scheme does not say it, `ca`, `cert` and `key` (PEM files), `sentinel_username` and `sentinel_password`."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from urllib.parse import parse_qsl, unquote, urlsplit

_PORT = 6379
_SENTINEL_PORT = 26379
_SCHEMES = ("redis", "rediss", "sentinel", "cluster")
_IN_A_PASSWORD = "(in a password, write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A, % as %25)"
_FILES = ("ca", "cert", "key")
_OPTIONS = ("tls", *_FILES, "sentinel_username", "sentinel_password")
_TLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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
    sentinel_username: str = ""
    cert_file: str = ""
    """PEM file of the certificate to show, with its key unless that is in `key_file`; empty: none."""
    key_file: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Those it names."""
        return tuple(name for name in (self.ca_file, self.cert_file, self.key_file) if name)


def parse_redis_url(url: str) -> RedisUrl:
    """Raises ValueError, which never shows the URL: it may hold a password."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError("must begin with redis://, rediss://, sentinel:// or cluster://")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no URL") from None
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    if not parts.netloc or parts.fragment:
        raise ValueError(f"has no host, or a # in it {_IN_A_PASSWORD}")
    options = _options(parts.query)
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
        _speaks_tls(scheme, options),
        options.get("ca", ""),
        master,
        options.get("sentinel_password", ""),
        options.get("sentinel_username", ""),
        options.get("cert", ""),
        options.get("key", ""),
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if options.keys() - set(_OPTIONS):
        # Not by its name: it may be the rest of a password with a ? in it.
        raise ValueError(f"has an unknown option after the ?; there are {', '.join(_OPTIONS)}")
    for name in _FILES:
        if name in options and not PurePath(options[name]).is_absolute():
            raise ValueError(f"{name} must be the whole path of a file, beginning with /")
    if "key" in options and "cert" not in options:
        raise ValueError("has a key without a cert")
    return options


def _speaks_tls(scheme: str, options: dict[str, str]) -> bool:
    if "tls" not in options:
        # Somebody who names a certificate means it.
        if scheme != "rediss" and not options.keys().isdisjoint(_FILES):
            raise ValueError("names a file for TLS, but not tls=true")
        return scheme == "rediss"
    wanted = _TLS.get(options["tls"].lower())
    if wanted is None or (scheme == "rediss" and not wanted):
        raise ValueError("tls is true or false, and always true with rediss://")
    return wanted


def _address(text: str, default_port: int) -> tuple[str, int]:
    host, port = text, str(default_port)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else port
    elif ":" in text:
        host, _, port = text.rpartition(":")
    if not host:
        raise ValueError(f"has no host {_IN_A_PASSWORD}")
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError(f"has no usable port {_IN_A_PASSWORD}")
    return host, int(port)
