"""What a lab plays on: engines, a proxy over them, clients. All of it ends with the stage, on every way out."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.labs.client import Client
from bench.labs.failure import LabFailed
from bench.labs.processes import Engine, Proxy

_LOOK_S = 0.003
_PATIENCE_S = 20.0


class Stage:
    """`async with Stage(directory) as stage:`. Backends are named `b1`, `b2`, ... in their order."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = AsyncExitStack()
        self._made = 0

    async def __aenter__(self) -> "Stage":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def engines(self, *each: Sequence[str]) -> list[Engine]:
        """One emulated engine for each list of options, started at the same time. The time to compute a prompt and
        the slowdown in a batch are off, so that an engine's own times are known."""
        plain = ("emulate", "--port", "0", "--prefill", "0", "--slowdown", "0")
        engines = [
            await self._stack.enter_async_context(Engine(self._file("engine.log"), *plain, *options))
            for options in each
        ]
        await asyncio.gather(*(engine.ready() for engine in engines))
        return engines

    async def proxy(self, config: "ConfigFile") -> Proxy:
        """A proxy that has work to give to all of its backends."""
        proxy = await self._stack.enter_async_context(
            Proxy(self._file("proxy.log"), "serve", "--config", str(config.path))
        )
        await proxy.ready()
        async with await Client.open(proxy.admin_port) as admin:

            async def all_eligible() -> bool:
                pool = json.loads(await admin.get("/admin/pools/lab"))
                return bool(pool["eligible"] == len(pool["backends"]))

            await until(all_eligible, "backends that are well")
        return proxy

    async def client(self, port: int) -> Client:
        return await self._stack.enter_async_context(await Client.open(port))

    async def clients(self, port: int, count: int) -> list[Client]:
        return [await self.client(port) for _ in range(count)]

    def config(self, engines: Sequence[Engine], **options: Any) -> "ConfigFile":
        """A configuration file over these engines."""
        file = ConfigFile(self._file("proxy.yaml"), self._file("access.jsonl"))
        file.write({f"b{number}": engine.url for number, engine in enumerate(engines, 1)}, **options)
        return file

    def _file(self, name: str) -> Path:
        self._made += 1
        return self._directory / f"{self._made}-{name}"


class ConfigFile:
    """A configuration with free ports and an access log; written anew for a reload."""

    def __init__(self, path: Path, log: Path) -> None:
        self.path = path
        self._log = log

    def write(
        self,
        urls: dict[str, str],
        *,
        each: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        sections: dict[str, Any] | None = None,
    ) -> None:
        """Save as editors do: beside it, then over it. `each` goes to every backend, `pool` to the pool, `sections`
        beside the pools."""
        backends = [{"url": url, "id": id, **(each or {})} for id, url in urls.items()]
        values = {
            "server": {"host": "127.0.0.1", "port": 0, "limits": {"connections": 2000}},
            "admin": {"port": 0},
            "pools": {"lab": {"backends": backends, **(pool or {})}},
            "logging": {"access": "json", "file": str(self._log)},
            **(sections or {}),
        }
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(values))  # JSON is YAML
        beside.rename(self.path)

    def log(self) -> list[dict[str, Any]]:
        """The access log so far."""
        lines = self._log.read_text().splitlines(keepends=True) if self._log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll `condition` (plain or async) until it is true, and return what it gave."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_S
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if loop.time() >= deadline:
            raise LabFailed(f"never came: {what}")
        await asyncio.sleep(_LOOK_S)


def metric(page: bytes, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    total = 0.0
    for found in re.finditer(rf"^{name}(?:{{(.*)}})? (\S+)$", page.decode(), re.MULTILINE):
        if all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
            total += float(found[2])
    return total
