"""A proxy in this process, on free ports, that can be looked into: its access log, its metrics, what it holds."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from llmproxy.app import App
from llmproxy.config.model import Config
from llmproxy.core.backend import Backend, Status
from llmproxy.stores.memory import MemoryStore
from llmproxy.wire.deadlines import NEVER
from llmproxy.wire.downstream import Downstream
from tests.harness.waiting import until

Sections = Mapping[str, Any]


def settings(pools: Sections, log: Path | None, **sections: Any) -> dict[str, Any]:
    """A configuration as a file would give it: loopback, free ports, the access log in `log`."""
    server = {"host": "127.0.0.1", "port": 0, "drain_timeout": "1s"} | sections.pop("server", {})
    admin = {"port": 0} | sections.pop("admin", {})
    logging = {"access": "off" if log is None else "json"} | ({} if log is None else {"file": str(log)})
    return {"server": server, "admin": admin, "pools": dict(pools), "logging": logging, **sections}


class Proxy:
    """One running `App`."""

    def __init__(self, app: App, log: Path) -> None:
        self.app = app
        self._log = log

    @property
    def port(self) -> int:
        return self.app.listener.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.app.admin.port}"

    @property
    def handler(self) -> Any:
        return self.app.handler

    def pool(self, name: str = "main") -> Any:
        return self.app.pools[name]

    def backend(self, id: str, pool: str = "main") -> Backend:
        return next(backend for backend in self.pool(pool).backends if backend.id == id)

    def connections_to(self, id: str, pool: str = "main") -> Any:
        """The pool of upstream connections to a backend, which must have been used."""
        return self.app.links._links[self.backend(id, pool)].connections

    async def healthy(self, *ids: str, pool: str = "main") -> None:
        """Wait until these backends (all of the pool's by default) may be given work."""

        def all_well() -> bool:
            backends = [b for b in self.pool(pool).backends if not ids or b.id in ids]
            return all(backend.status is Status.HEALTHY for backend in backends)

        await until(all_well, f"healthy backends: {self.pool(pool).backends}")

    # -- what it tells ---------------------------------------------------------------------------------------------

    async def log(self) -> list[dict[str, Any]]:
        """The access log so far, in order."""
        log = self.app._access_log
        assert log is not None
        assert await asyncio.to_thread(log.flush, 5.0)
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    async def record(self, request_id: str) -> dict[str, Any]:
        """The access log's line for a request; waits for it."""

        async def find() -> dict[str, Any] | None:
            return next((line for line in await self.log() if line["request_id"] == request_id), None)

        found: dict[str, Any] = await until(find, f"the log line of {request_id}")
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        page = self.app._exposition.render()[0].decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    # -- what it holds ---------------------------------------------------------------------------------------------

    def held(self) -> dict[str, Any]:
        """Everything that must be back at nothing when no request is under way; empty when it is."""
        app = self.app
        found: dict[str, Any] = {"buffered": app.handler.buffered, "exchanges": self._exchanges()}
        for name, pool in app.pools.items():
            found |= {f"in_flight {backend.id}": backend.load.in_flight for backend in pool.backends}
            found[f"waiting {name}"] = pool.queue.waiting
            found[f"live requests {name}"] = pool.retries.live  # type: ignore[attr-defined]
            found[f"retries {name}"] = pool.retries.retries  # type: ignore[attr-defined]
            found[f"trials {name}"] = sum(m.breaker.trial_out for m in pool.health._members.values())  # type: ignore[attr-defined]
        found |= self._limits_held()
        for backend, link in app.links._links.items():
            found[f"connections in use {backend.id}"] = link.connections.open - len(link.connections._idle)
        for room in app.handler._rooms.values():
            found[f"room {room.pool.name}"] = int(room.deadline != NEVER and bool(room.pool.queue.waiting))
        return {what: count for what, count in found.items() if count}

    def _limits_held(self) -> dict[str, Any]:
        limiter = self.app._limiting.limiter
        if limiter is None:
            return {}
        store: Any = limiter.store
        leases = store._leases if isinstance(store, MemoryStore) else store.alone.held
        return {
            "limited requests": sum(usage.in_flight for usage in limiter.usage._known.values()),
            "leases": len(leases),
        }

    async def at_rest(self) -> None:
        """Wait until nothing is held for any request."""
        await until(lambda: self.held() == {} or self._complain(), "a proxy at rest")

    async def without_clients(self) -> None:
        """Wait until the last client connection is closed, and nothing is left of any."""
        await until(lambda: not self.app.listener.connections, f"no clients: {self.app.listener.connections}")
        await self.at_rest()
        assert not [item for item in self.app._deadlines._items if isinstance(item, Downstream)]

    def _exchanges(self) -> int:
        return sum(connection._exchange is not None for connection in self.app.listener.connections)

    def _complain(self) -> bool:
        raise AssertionError(f"still held: {self.held()}")


def config_of(values: Mapping[str, Any]) -> Config:
    return Config.model_validate(values)
