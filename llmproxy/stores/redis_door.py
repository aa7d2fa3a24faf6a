"""Finding the Redis to talk to and opening a connection to it: one server, what sentinels name, or a cluster's node."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import hiredis

from llmproxy.core.redis_url import RedisUrl, Topology
from llmproxy.stores.redis_link import RedisLink

Address = tuple[str, int]
T = TypeVar("T")
ONE_OF_MANY_S = 0.3
"""For a sentinel, or a node of the cluster: there are others, and all of this is given a second."""
_TROUBLE = (OSError, TimeoutError, hiredis.HiredisError)
_REDIRECTS_MAX = 5
"""Of nodes that do not agree with one another."""


class RedisDoor:
    """Opens connections that are logged in. One attempt each; the caller limits the time and tries again."""

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._turn = 0
        """Which of the addresses comes first: the one that answered last time."""
        self._moved: Address | None = None
        self._redirects = 0
        self._at: Address = url.addresses[0]
        self._tls: ssl.SSLContext | None = None

    async def open(self) -> RedisLink:
        """Raises OSError (`ConnectionError` among them) or what Redis answers."""
        moved, self._moved = self._moved, None
        if moved is not None:
            return await self._enter(moved)
        self._redirects = 0
        if self._url.topology is Topology.SENTINEL:
            return await self._enter(await self._first(self._master))
        if self._url.topology is Topology.CLUSTER:
            return await self._first(self._enter)
        return await self._enter(self._url.addresses[0])

    def redirected(self, error: Exception) -> bool:
        """Whether `error` is a cluster's node naming the one that has our slot, which is opened next."""
        words = str(error).split()
        if len(words) != 3 or words[0] != "MOVED" or self._redirects >= _REDIRECTS_MAX:
            return False
        host, _, port = words[2].rpartition(":")
        if not port.isdecimal():
            return False
        # A node that does not know how others are called from here leaves the host out: it is its own.
        self._moved = (self._at[0] if host in ("", "?") else host.strip("[]"), int(port))
        self._redirects += 1
        return True

    async def _first(self, what: Callable[[Address], Awaitable[T]]) -> T:
        """What comes of the first address where it can be had."""
        addresses = self._url.addresses
        for left in reversed(range(len(addresses))):
            address = addresses[self._turn % len(addresses)]
            # So that another one is next, also when the caller's time is over in the middle of this.
            self._turn += 1
            try:
                async with asyncio.timeout(ONE_OF_MANY_S):
                    found = await what(address)
            except _TROUBLE:
                if not left:
                    raise
                continue
            self._turn -= 1
            return found
        raise ConnectionError("there is no address")

    async def _master(self, sentinel: Address) -> Address:
        """Whom it names."""
        url = self._url
        link = await self._connect(sentinel)
        try:
            await self._log_in(link, url.sentinel_username, url.sentinel_password)
            found = await link.ask("SENTINEL", "get-master-addr-by-name", url.master)
        finally:
            link.abort()
        if not found:
            raise ConnectionError(f"the sentinel knows no {url.master!r}")
        return found[0].decode(), int(found[1])

    async def _enter(self, address: Address) -> RedisLink:
        link = await self._connect(address)
        url = self._url
        try:
            await self._log_in(link, url.username, url.password)
            if url.database:
                await link.ask("SELECT", url.database)
            if url.tls and not (url.username or url.password):
                await link.ask("PING")
        except ConnectionError as error:
            link.abort()
            self._tls = None
            if url.tls and not url.cert_file:
                # A server that wants a certificate says so after the handshake, and not always in time to be heard.
                raise ConnectionError("TLS fails: it hangs up; does it ask for a certificate (cert=)?") from error
            raise
        except BaseException:
            link.abort()
            raise
        self._at = address
        return link

    @staticmethod
    async def _log_in(link: RedisLink, username: str, password: str) -> None:
        if username or password:
            await link.ask("AUTH", *((username,) if username else ()), password)

    async def _connect(self, address: Address) -> RedisLink:
        if self._url.tls and self._tls is None:
            self._tls = await asyncio.to_thread(_tls_context, self._url)
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_connection(RedisLink, *address, ssl=self._tls)
        except ssl.SSLError:
            # The files may be others by the next time.
            self._tls = None
            raise
        return link


def _tls_context(url: RedisUrl) -> ssl.SSLContext:
    """Raises OSError. Looks at files: call it from a thread."""
    try:
        context = ssl.create_default_context(cafile=url.ca_file or None)
        if url.cert_file:
            context.load_cert_chain(url.cert_file, url.key_file or None)
    except ssl.SSLError:
        raise
    except OSError as error:
        # It does not say which.
        raise ConnectionError(f"{' or '.join(url.files)} cannot be read: {error.strerror}") from None
    return context
