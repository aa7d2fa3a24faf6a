"""Certificates, authorities and secrets are exchanged while the proxy runs: saving the file is enough, and nobody who
is connected notices."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from llmproxy.config.loader import load as load_config
from llmproxy.config.model import Config
from llmproxy.control import reload as reload_module
from llmproxy.control.file_watch import FileWatch
from tests.harness.client import Client
from tests.harness.processes import ServingProcess
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

KEPT = Path(__file__).parents[1] / "unit" / "config" / "tls"
FIRST, SECOND = KEPT / "server", KEPT / "rsa"
"""The first has an elliptic key, the second an RSA one: each is its own authority for localhost and 127.0.0.1."""
NAMES = {"llmproxy test": FIRST, "llmproxy test 2": SECOND}
WHOLE = chat(stream=False, max_tokens=1)


class Folder:
    """A configuration with the files it names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "proxy.yaml"
        self.watch = FileWatch()

    def put(self, name: str, content: bytes) -> None:
        """Save as `mv` does: whole, or not yet."""
        beside = self.path / f"{name}.new"
        beside.write_bytes(content)
        beside.rename(self.path / name)

    def pair(self, which: Path) -> None:
        """The certificate and the key, one after the other, as an issuing client writes them."""
        self.put("tls.crt", which.with_suffix(".crt").read_bytes())
        self.put("tls.key", which.with_suffix(".key").read_bytes())

    def write(self, *urls: Any, pool: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
        backends = [{"id": "b1"} | (url if isinstance(url, dict) else {"url": url}) for url in urls]
        values = settings({"main": {"backends": backends} | (pool or {})}, self.path / "access.jsonl", **sections)
        self.put("proxy.yaml", yaml.safe_dump(values).encode())
        return values

    def load(self) -> Config:
        with self.watch.reading() as about_to_read:
            return load_config(self.config, on_file=about_to_read)

    async def serve(self, stage: Stage, values: dict[str, Any]) -> Proxy:
        """The proxy, told of changed files, with the names in `values` as they come out of the file."""
        config = self.load()
        return await stage.serve(values | config.model_dump(mode="json"), load=self.load, watch=self.watch)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at as often as a test looks."""
    monkeypatch.setattr(reload_module, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    for which in NAMES.values():
        context.load_verify_locations(which.with_suffix(".crt"))
    return context


def shown(client: Client) -> Path:
    """Which certificate the proxy has shown to this client."""
    names = dict(part[0] for part in client.writer.get_extra_info("ssl_object").getpeercert()["subject"])
    return NAMES[names["commonName"]]


async def shown_to_a_new_client(stage: Stage, proxy: Any, trusting: ssl.SSLContext) -> Path:
    client = await stage.client(proxy, tls=trusting)
    answer = await client.ask("POST", CHAT, WHOLE)
    assert answer.status == 200
    client.leave()
    return shown(client)


async def reload(http: aiohttp.ClientSession, proxy: Proxy) -> tuple[int, dict[str, Any]]:
    async with http.post(f"{proxy.admin_url}/admin/reload") as response:
        return response.status, await response.json()


TLS = {"tls": {"cert": "tls.crt", "key": "tls.key"}}


async def test_a_serving_process_shows_a_new_certificate_to_new_clients(
    stage: Stage, folder: Folder, trusting: ssl.SSLContext
) -> None:
    engine = await stage.backend(itl_s=0.005)
    folder.pair(FIRST)
    folder.write(engine.url, server=TLS | {"drain_timeout": "20s"})
    async with ServingProcess(str(folder.config)) as proxy:
        await proxy.ready()
        old = await stage.client(proxy, tls=trusting)
        await old.send("POST", CHAT, chat(max_tokens=600))
        answer = await old.head()
        assert shown(old) == FIRST
        for which in (SECOND, FIRST):
            folder.pair(which)

            async def is_shown(which: Path = which) -> bool:
                return await shown_to_a_new_client(stage, proxy, trusting) == which

            await until(is_shown, f"{which.name} shown to new clients: {proxy}", 20.0)
        # Whoever was connected has noticed nothing, and may go on.
        await old.rest(answer)
        assert (len(answer.text.split()), answer.events[-1]) == (600, "[DONE]")
        assert (await old.ask("POST", CHAT, WHOLE)).status == 200
        old.leave()


async def test_half_of_a_new_pair_changes_nothing(
    stage: Stage, folder: Folder, http: aiohttp.ClientSession, trusting: ssl.SSLContext
) -> None:
    engine = await stage.backend()
    folder.pair(FIRST)
    proxy = await folder.serve(stage, folder.write(engine.url, server=TLS))
    folder.put("tls.crt", SECOND.with_suffix(".crt").read_bytes())
    status, answer = await reload(http, proxy)
    assert status == 422
    assert "the key does not belong to the certificate" in answer["error"]["problems"][0]
    assert await shown_to_a_new_client(stage, proxy, trusting) == FIRST
    folder.put("tls.key", SECOND.with_suffix(".key").read_bytes())
    status, answer = await reload(http, proxy)
    assert (status, answer["needs_restart"]) == (200, [])
    assert await shown_to_a_new_client(stage, proxy, trusting) == SECOND


async def test_other_files_may_be_named(
    stage: Stage, folder: Folder, http: aiohttp.ClientSession, trusting: ssl.SSLContext
) -> None:
    engine = await stage.backend()
    folder.pair(FIRST)
    proxy = await folder.serve(stage, folder.write(engine.url, server=TLS))
    for end in ("crt", "key"):
        shutil.copy(SECOND.with_suffix(f".{end}"), folder.path / f"other.{end}")
    folder.write(engine.url, server={"tls": {"cert": "other.crt", "key": "other.key"}})
    status, answer = await reload(http, proxy)
    assert (status, answer["needs_restart"]) == (200, [])
    assert await shown_to_a_new_client(stage, proxy, trusting) == SECOND


async def test_clients_that_name_the_server_see_the_new_one_too(
    stage: Stage, folder: Folder, http: aiohttp.ClientSession, trusting: ssl.SSLContext
) -> None:
    engine = await stage.backend()
    folder.pair(FIRST)
    proxy = await folder.serve(stage, folder.write(engine.url, server=TLS))
    folder.pair(SECOND)
    assert (await reload(http, proxy))[0] == 200
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trusting.minimum_version = trusting.maximum_version = version
        for name in ("localhost", "127.0.0.1"):  # the latter is not sent as SNI
            streams = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=trusting, server_hostname=name)
            client = Client(*streams)
            assert (await client.ask("GET", "/health")).status == 200
            assert shown(client) == SECOND
            client.leave()


class TlsEngine:
    """Shows the certificate `current`, lists its name as its one model, and closes every connection after an answer."""

    def __init__(self) -> None:
        self.current = FIRST
        self._contexts = {which: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for which in (FIRST, SECOND)}
        for which, context in self._contexts.items():
            context.load_cert_chain(which.with_suffix(".crt"), which.with_suffix(".key"))
        self._contexts[FIRST].sni_callback = self._choose
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)

    async def __aenter__(self) -> "TlsEngine":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._contexts[FIRST]).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._contexts[self.current]

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        answer = web.json_response({"data": [{"id": self.current.name}], "choices": []})
        answer.force_close()
        return answer


async def test_a_backend_s_new_authority_is_believed(stage: Stage, folder: Folder, quickly: None) -> None:
    async with TlsEngine() as engine:
        folder.put("ca.crt", FIRST.with_suffix(".crt").read_bytes())
        values = folder.write({"url": engine.url, "ca": "ca.crt"}, pool={"health": {"interval": "50ms"}})
        proxy = await folder.serve(stage, values)

        async def status() -> int:
            return (await stage.ask(proxy, WHOLE)).status

        async def models() -> list[str]:
            return [card["id"] for card in (await stage.ask(proxy, path="/v1/models")).json["data"]]

        assert await status() == 200
        await until(models, "its models")
        engine.current = SECOND
        assert await status() >= 500
        folder.put("ca.crt", SECOND.with_suffix(".crt").read_bytes())
        await until(lambda: proxy.metric("llmproxy_config_reloads_total", result="ok") == 2, "the reload")
        await proxy.healthy()
        assert await status() == 200
        # By those who ask for models too, when it is their turn again.
        stage.clock.jump(61)

        async def is_asked() -> bool:
            return await models() == [SECOND.name]

        await until(is_asked, "the models it has now")
        # And the old one is not believed any more.
        engine.current = FIRST
        assert await status() >= 500


async def test_a_new_secret_is_used(stage: Stage, folder: Folder, quickly: None) -> None:
    engine = await stage.backend()
    folder.put("key", b"old\n")
    proxy = await folder.serve(stage, folder.write(engine.url, pool={"upstream_key": "${file:key}"}))

    async def key() -> str | None:
        assert (await stage.ask(proxy, WHOLE)).status == 200
        found: str | None = [request for request in engine.requests if request.path == CHAT][-1].header("authorization")
        return found

    assert await key() == "Bearer old"
    folder.put("key", b"new\n")

    async def is_used() -> bool:
        return await key() == "Bearer new"

    await until(is_used, "the new key")
