"""Host names to addresses: looked up off the request path, refreshed in the background, kept when DNS dies.

An address is what `socket.connect` wants: a family and a socket address. IP literals (and the other numeric forms
that the C library takes) never go near DNS. A name is looked up when first asked for, then again every
`REFRESH_S`, jittered. While it fails, its last good addresses stay in use for as long as the name is wanted.
"""

import asyncio
import logging
import math
import random
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from llmproxy.control.tasks import end_tasks
from llmproxy.core.clock import Clock

REFRESH_S = 15.0
RETRY_S = 3.0
"""How soon a name that failed is tried again; until then, asking for it fails at once."""
LOOKUP_TIMEOUT_S = 10.0
_TICK_S = 1.0

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
"""Address family and socket address."""
Lookup = Callable[[str, int], Awaitable[tuple[Address, ...]]]
"""Asks the system for the addresses of a host and port. OSError when there are none."""

_log = logging.getLogger("llmproxy.control.resolver")


@dataclass(slots=True, eq=False)
class _Name:
    addresses: tuple[Address, ...] | None = None
    due: float = 0.0
    error: OSError | None = None
    pending: "asyncio.Task[None] | None" = None


class Resolver:
    """The addresses of every host in use. `on_change` is called whenever a lookup changed a name's addresses."""

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        lookup: Lookup | None = None,
        on_change: Callable[[], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.on_change = on_change
        self._clock = clock
        self._rng = rng
        self._ask = lookup or system_lookup
        self._sleep = sleep
        self._names: dict[tuple[str, int], _Name] = {}
        self._loop: asyncio.Task[None] | None = None

    def cached(self, host: str, port: int) -> tuple[Address, ...] | None:
        """The addresses as far as known, without waiting; None when the name was never resolved."""
        name = self._names.get((host, port))
        if name is None:
            numeric = numeric_addresses(host, port)
            if numeric is None:
                return None
            name = self._names[(host, port)] = _Name(numeric, due=math.inf)
        return name.addresses

    async def lookup(self, host: str, port: int) -> tuple[Address, ...]:
        """The addresses, asking DNS if need be. OSError when the name has none and never had."""
        known = self.cached(host, port)
        if known is not None:
            return known
        name = self._names.setdefault((host, port), _Name())
        if name.error is None or self._clock() >= name.due:
            await asyncio.shield(self._refresh(host, port, name))
        if name.addresses is None:
            raise OSError(f"cannot resolve {host}: {name.error}")
        return name.addresses

    async def hosts(self, host: str, port: int) -> tuple[str, ...]:
        """`lookup` for who takes IP literals instead of socket addresses; in order of preference."""
        addresses = await self.lookup(host, port)
        if self._names[(host, port)].due == math.inf:
            return (host,)  # numeric already; a socket address would lose the zone of a link-local one
        return tuple(dict.fromkeys(sockaddr[0] for _, sockaddr in addresses))

    def keep_only(self, hosts: Collection[tuple[str, int]]) -> None:
        """Forget every (host, port) that no backend uses any more."""
        for key in self._names.keys() - set(hosts):
            del self._names[key]

    async def refresh_due(self) -> None:
        """Look up again whatever is due, all at once."""
        now = self._clock()
        due = [(key, name) for key, name in self._names.items() if name.due <= now]
        await asyncio.gather(*(self._refresh(host, port, name) for (host, port), name in due))

    def start(self) -> None:
        """Begin refreshing in the background."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name="resolver")

    async def stop(self) -> None:
        tasks = [self._loop, *(name.pending for name in self._names.values())]
        self._loop = None
        await end_tasks(*tasks)

    async def _run(self) -> None:
        while True:
            await self._sleep(_TICK_S)
            try:
                await self.refresh_due()
            except Exception:
                _log.exception("refreshing addresses failed; the last ones stay in use")

    def _refresh(self, host: str, port: int, name: _Name) -> "asyncio.Task[None]":
        """The lookup in progress, or a new one: a name is asked for once at a time, whoever waits for it."""
        if name.pending is None:
            name.pending = asyncio.create_task(self._look(host, port, name), name=f"resolve {host}")
        return name.pending

    async def _look(self, host: str, port: int, name: _Name) -> None:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                found = await self._ask(host, port)
        except OSError as error:  # TimeoutError is one too
            if name.error is None:
                _log.warning("cannot resolve %s (%s)", host, error or "no answer")
            name.error = error
            name.due = self._clock() + RETRY_S
        else:
            name.error = None
            name.due = self._clock() + REFRESH_S * (0.75 + 0.5 * self._rng.random())
            # DNS servers rotate their answers: only another set of addresses is a change.
            if name.addresses is None or set(found) != set(name.addresses):
                name.addresses = found
                self._changed(host)
        finally:
            name.pending = None

    def _changed(self, host: str) -> None:
        if self.on_change is None:
            return
        try:
            self.on_change()
        except Exception:
            _log.exception("new addresses of %s could not be put to use", host)


class NameService(AbstractResolver):
    """A `Resolver` as aiohttp wants it, so that probes fail static with everyone else when DNS dies."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=kind,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, address in await self._resolver.lookup(host, port)
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        """Nothing of its own to release."""


async def system_lookup(host: str, port: int) -> tuple[Address, ...]:
    """What the system's resolver says (hosts file, DNS), in its order of preference."""
    try:
        return _addresses(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError as error:  # a label that no DNS name can have
        raise OSError(str(error)) from None


def numeric_addresses(host: str, port: int) -> tuple[Address, ...] | None:
    """The address that `host` itself is, or None when it is a name."""
    try:
        return _addresses(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return None


def _addresses(found: Sequence[tuple[Any, ...]]) -> tuple[Address, ...]:
    return tuple(dict.fromkeys((int(family), sockaddr) for family, _, _, _, sockaddr in found))
