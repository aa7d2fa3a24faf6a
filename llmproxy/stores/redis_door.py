"""Finding the Redis to talk to and opening a connection to it: one server, what sentinels name, or a cluster's node."""

import asyncio
import ssl

import hiredis

from llmproxy.core.redis_url import RedisUrl, Topology
from llmproxy.stores.redis_link import RedisLink

Address = tuple[str, int]


class RedisDoor:
    """Opens connections that are logged in. One attempt each; the caller limits the time and tries again."""

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._turn = 0
        self._moved: Address | None = None
        self._tls: ssl.SSLContext | None = None

    async def open(self) -> RedisLink:
        """Raises OSError (`ConnectionError` among them) or what Redis answers."""
        moved, self._moved = self._moved, None
        if moved is not None:
            return await self._enter(moved)
        if self._url.topology is Topology.SENTINEL:
            return await self._enter(await self._ask_sentinels())
        addresses = self._url.addresses
        self._turn += 1
        return await self._enter(addresses[(self._turn - 1) % len(addresses)])

    def redirected(self, error: Exception) -> bool:
        """Whether `error` is a cluster's node naming the one that has our slot, which is opened next."""
        words = str(error).split()
        if len(words) != 3 or words[0] != "MOVED":
            return False
        host, _, port = words[2].rpartition(":")
        # Without a host it is the one that answered, whose address is only known to be among ours.
        self._moved = (host or self._url.addresses[0][0], int(port))
        return True

    async def _ask_sentinels(self) -> Address:
        url = self._url
        failure: Exception = ConnectionError(f"no sentinel knows {url.master!r}")
        for address in url.addresses:
            try:
                async with asyncio.timeout(0.5):
                    link = await self._connect(address)
                    try:
                        if url.sentinel_password:
                            await link.ask("AUTH", url.sentinel_password)
                        found = await link.ask("SENTINEL", "get-master-addr-by-name", url.master)
                    finally:
                        link.abort()
            except (OSError, hiredis.HiredisError, TimeoutError) as error:
                failure = error
                continue
            if found:
                return found[0].decode(), int(found[1])
        raise ConnectionError(f"no sentinel names a master: {failure}")

    async def _enter(self, address: Address) -> RedisLink:
        link = await self._connect(address)
        url = self._url
        try:
            if url.password:
                await link.ask("AUTH", *((url.username,) if url.username else ()), url.password)
            if url.database:
                await link.ask("SELECT", url.database)
        except BaseException:
            link.abort()
            raise
        return link

    async def _connect(self, address: Address) -> RedisLink:
        if self._url.tls and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._url.ca_file or None)
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(RedisLink, *address, ssl=self._tls)
        return link
