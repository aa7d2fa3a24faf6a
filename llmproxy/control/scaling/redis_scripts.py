"""Runs Lua scripts on a Redis. The client library is an extra (`pip install llmproxy-gateway[redis]`)."""

from typing import Any

TIMEOUT_S = 2.0


class RedisScripts:
    """One connection pool, made at the first use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    async def evaluate(self, script: str, keys: list[str], arguments: list[str]) -> Any:
        """What the script returns. Raises whatever the client does when Redis is away."""
        if self._client is None:
            from redis.asyncio import Redis

            self._client = Redis.from_url(
                self._url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, decode_responses=True
            )
        return await self._client.eval(script, len(keys), *keys, *arguments)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
