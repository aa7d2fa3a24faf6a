"""Commands to Redis that are few and may wait: keys, what operators ask, who scales a pool."""

import asyncio
from typing import Any

import hiredis

from llmproxy.core.redis_url import parse_redis_url
from llmproxy.stores.redis_door import RedisDoor
from llmproxy.stores.redis_link import Argument, RedisLink

TIMEOUT_S = 2.5
"""Of any one command, connecting included; longer than the second that listening for changes waits."""


class RedisClient:
    """One connection, made when first needed and given up with any command that fails; one command at a time. Nothing
    is tried twice, but for what a cluster's node says another one has to be asked: whoever uses this knows better.

    Raises OSError (`ConnectionError` among them), `TimeoutError`, and `hiredis.HiredisError` for what Redis refuses."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError for a bad URL."""
        self._door = RedisDoor(parse_redis_url(url))
        self._timeout_s = timeout_s
        self._link: RedisLink | None = None
        self._turn = asyncio.Lock()

    async def ask(self, *command: Argument) -> Any:
        """What Redis answers: bytes, numbers, lists of them, None."""
        async with self._turn, asyncio.timeout(self._timeout_s):
            while True:
                try:
                    return await self._ask(command)
                except hiredis.ReplyError as error:
                    if not self._door.redirected(error):
                        raise

    async def evaluate(self, script: str, keys: list[str], arguments: list[str]) -> Any:
        """Run a script."""
        return await self.ask("EVAL", script, len(keys), *keys, *arguments)

    async def aclose(self) -> None:
        """End the connection; nothing else is waited for."""
        self._drop()

    async def _ask(self, command: tuple[Argument, ...]) -> Any:
        if self._link is None or self._link.lost:
            self._link = await self._door.open()
        try:
            return await self._link.ask(*command)
        except BaseException:
            # Whatever it was: it may be no primary any more, or its answer may still be to come.
            self._drop()
            raise

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.abort()
