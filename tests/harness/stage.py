"""What a test plays on: emulated backends, proxies and clients, all ended in the right order and checked for leaks."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from llmproxy.app import App
from llmproxy.emulator import Emulator, EmulatorOptions, EngineOptions
from tests.harness.client import Answer, Client
from tests.harness.clock import Clock
from tests.harness.deaf import Deaf
from tests.harness.proxy import Proxy, config_of, settings
from tests.harness.scripted import Script, Scripted

MODEL = "emulated"
MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"


def chat(*, stream: bool = True, max_tokens: int = 5, **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": MODEL, "messages": MESSAGES, "stream": stream, "max_tokens": max_tokens, **fields}


class Stage:
    """`b1`, `b2`, ... are the ids of the backends in the order in which they were given."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = AsyncExitStack()
        self._proxies: list[Proxy] = []
        self._clients: list[Client] = []
        self.clock = Clock()
        """What every proxy here takes for the time."""

    async def backend(
        self, *, ttft_s: float = 0.0, itl_s: float = 0.001, max_num_seqs: int = 256, **options: Any
    ) -> Emulator:
        """An emulated backend, fast unless told otherwise, that keeps connections longer than any test waits."""
        engine = EngineOptions(
            ttft_s=ttft_s, itl_s=itl_s, max_num_seqs=max_num_seqs, prefill_s_per_token=0.0, batch_slowdown=0.0
        )
        return await self._stack.enter_async_context(
            Emulator(EmulatorOptions(engine=engine, **{"keepalive_s": 60.0} | options))
        )

    async def backends(self, count: int, **options: Any) -> list[Emulator]:
        """Several alike, named `b1`, `b2`, ... in `X-Emulator`."""
        return [await self.backend(name=f"b{number}", **options) for number in range(1, count + 1)]

    async def scripted(self, script: Script, **options: Any) -> Scripted:
        """A backend that answers as `script` says."""
        return await self._stack.enter_async_context(Scripted(script, **options))

    async def deaf(self) -> Deaf:
        """A backend that can be made to let connections hang."""
        return await self._stack.enter_async_context(Deaf())

    async def proxy(
        self,
        *backends: Any,
        each: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        healthy: bool = True,
        **sections: Any,
    ) -> Proxy:
        """A proxy over the pool `main` of `backends` (anything with a `url`, a URL, or a backend's settings), with
        `each` added to every backend's settings and `pool` to the pool's."""
        entries = []
        for number, backend in enumerate(backends, 1):
            entry = backend if isinstance(backend, dict) else {"url": getattr(backend, "url", backend)}
            entries.append({"id": f"b{number}"} | (each or {}) | entry)
        pools = {"main": {"backends": entries} | (pool or {})} | sections.pop("pools", {})
        return await self.serve(settings(pools, self._log_file(), **sections), healthy=healthy)

    async def serve(self, values: dict[str, Any], *, healthy: bool = True, **options: Any) -> Proxy:
        """A proxy with a whole configuration; `options` are the App's."""
        app = App(config_of(values), seed=7, clock=self.clock, **options)
        await app.start()
        self._stack.push_async_callback(app.stop, 0.0)
        proxy = Proxy(app, Path(values["logging"].get("file", "")))
        self._proxies.append(proxy)
        for name in app.pools if healthy else ():
            await proxy.healthy(pool=name)
        return proxy

    async def client(self, proxy: Any, **options: Any) -> Client:
        """A connection to a proxy, or to anything with a `port`."""
        client = await Client.open(proxy.port, **options)
        self._clients.append(client)
        return client

    async def ask(
        self,
        proxy: Any,
        body: Any = None,
        path: str = CHAT,
        *,
        id: str | None = None,
        headers: Any = (),
        **options: Any,
    ) -> Answer:
        """One request on a connection of its own; a POST when it has a body."""
        client = await self.client(proxy)
        method = options.pop("method", "GET" if body is None else "POST")
        named = [("X-Request-Id", id)] if id else []
        answer = await client.ask(method, path, body, [*headers, *named], **options)
        client.leave()
        return answer

    async def streaming(self, proxy: Proxy, body: Any, path: str = CHAT, *, id: str = "") -> tuple[Client, Answer]:
        """A stream that has said its first word."""
        client = await self.client(proxy)
        await client.send("POST", path, body, [("X-Request-Id", id)] if id else [])
        answer = await client.head()
        assert answer.status == 200, await client.reader.read(1000)
        await client.text(answer)
        return client, answer

    async def ended(self) -> None:
        """Clients leave, every proxy is found to hold nothing any more, and all is stopped."""
        try:
            for client in self._clients:
                client.leave()
            for proxy in self._proxies:
                if not proxy.app._stopped:
                    await proxy.without_clients()
        finally:
            await self._stack.aclose()

    def _log_file(self) -> Path:
        return self._directory / f"access-{len(self._proxies)}.jsonl"
