"""What the admin tests share: an admin server on a real socket over a fleet whose health registry is a recording fake
of the `HealthRegistry` port (the real one has its own tests)."""

import json
from types import SimpleNamespace

import aiohttp
import pytest

from llmproxy.admin.deps import AdminDeps
from llmproxy.admin.server import AdminServer
from llmproxy.config.model import PoolConfig
from llmproxy.control.reload import ReloadResult
from llmproxy.core.backend import Backend, Status
from llmproxy.core.clock import ManualClock
from llmproxy.core.pool import Pool


class RecordingHealth:
    """Every healthy backend is a candidate; drains are remembered."""

    def __init__(self):
        self.backends = ()
        self.calls = []

    def set_members(self, backends, now):
        self.backends = backends

    def candidates(self, now):
        return [backend for backend in self.backends if backend.status is Status.HEALTHY]

    def status(self, backend, now):
        return backend.status

    def drain(self, backend, now):
        self.calls.append(("drain", backend.id, now))
        backend.status = Status.DRAINING

    def undrain(self, backend, now):
        self.calls.append(("undrain", backend.id, now))
        backend.status = Status.HEALTHY


class Admin:
    """The server, what it depends on, and a client that speaks to it."""

    def __init__(self):
        self.clock = ManualClock(100.0)
        self.pools = {}
        self.draining = False
        self.token = ""
        self.reload_result = ReloadResult()
        self.metrics = (b"llmproxy_up 1\n", "text/plain; version=0.0.4; charset=utf-8")
        self.drains = []
        self.facts = {}
        self.questions = []
        self.answer = {}

    def add_pool(self, name, *ids):
        config = PoolConfig.model_validate({"backends": [{"url": f"http://{id}:8000", "id": id} for id in ids]})
        pool = Pool(name, config, SimpleNamespace(), RecordingHealth(), None, None)
        backends = [Backend(backend.spec(name)) for backend in config.backends]
        for backend in backends:
            backend.status = Status.HEALTHY
        pool.set_members(backends, 0.0)
        self.pools[name] = pool
        return pool

    def deps(self):
        async def reload():
            return self.reload_result

        def explain(*question):
            self.questions.append(question)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return AdminDeps(
            pools=lambda: self.pools,
            clock=self.clock,
            reload=reload,
            render_metrics=lambda: self.metrics,
            is_draining=lambda: self.draining,
            token=lambda: self.token,
            on_drain=lambda pool: self.drains.append(pool.name),
            describe=lambda pool, backend: self.facts,
            explain=explain,
        )

    async def ask(self, method, path, data=None, **headers):
        """(status, body, headers); the body parsed when it is JSON."""
        url = f"http://127.0.0.1:{self.server.port}{path}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, url, data=data, headers=headers) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(body) if is_json and body else body, response.headers


@pytest.fixture
async def admin():
    admin = Admin()
    admin.server = AdminServer(admin.deps(), host="127.0.0.1", port=0)
    await admin.server.start()
    async with aiohttp.ClientSession() as admin.client:
        yield admin
    await admin.server.stop()
