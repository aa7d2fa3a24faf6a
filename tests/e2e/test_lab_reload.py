"""A reload, however it is asked for, swaps the configuration whole and drops nothing."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from llmproxy.config.loader import load as load_config
from llmproxy.control.file_watch import FileWatch
from llmproxy.policies import check_policy
from tests.harness.load import Load
from tests.harness.processes import ServingProcess
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import MODEL, Stage, chat
from tests.harness.waiting import until


class Book:
    """A configuration file that is written anew."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "proxy.yaml"
        self._log = directory / "access-0.jsonl"

    def write(self, *urls: str, pool: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
        backends = [{"url": url, "id": f"b{url.rpartition(':')[2]}"} for url in urls]
        # Connections are kept longer than any test waits, so that those to a leaver are not merely retired.
        main = {"backends": backends, "health": {"interval": "200ms"}, "timeouts": {"keepalive": "60s"}} | (pool or {})
        values = settings({"main": main} | sections.pop("pools", {}), self._log, **sections)
        self.text(yaml.safe_dump(values))
        return values

    def text(self, text: str) -> None:
        """Save as editors do: beside it, then over it."""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.path)

    def load(self) -> Any:
        return load_config(self.path, check_policy=check_policy)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def reload(http: aiohttp.ClientSession, admin_url: str) -> tuple[int, dict[str, Any]]:
    async with http.post(f"{admin_url}/admin/reload") as response:
        return response.status, await response.json()


def id_of(engine: Any) -> str:
    return f"b{engine.port}"


async def start(stage: Stage, book: Book, *urls: str, **sections: Any) -> Proxy:
    return await stage.serve(book.write(*urls, **sections), load=book.load)


async def test_backends_come_and_go_under_load(stage: Stage, book: Book, http: aiohttp.ClientSession) -> None:
    first, second, third = await stage.backends(3, itl_s=0.002)
    proxy = await start(stage, book, first.url, second.url)
    long = [await stage.streaming(proxy, chat(max_tokens=600)) for _ in range(8)]
    async with Load(proxy.port, clients=12) as load:
        await until(lambda: load.answered >= 20, "some load")
        # One more.
        book.write(first.url, second.url, third.url)
        assert await reload(http, proxy.admin_url) == (200, {"reloaded": True, "changed": True, "needs_restart": []})
        await until(lambda: id_of(third) in load.backends, "traffic for the new one")
        # One less: what runs there finishes there, nothing new comes.
        book.write(second.url, third.url)
        assert (await reload(http, proxy.admin_url))[0] == 200
        before = first.received
        seen = load.answered
        await until(lambda: load.answered >= seen + 40, "more load")
        assert first.received == before
        assert first.in_flight >= 1
        # Others of the pool's settings, several times, as fast as it goes.
        for policy in ("round_robin", "random", {"name": "power_of_two"}, "least_connections"):
            book.write(second.url, third.url, pool={"policy": policy, "queue": {"max": 7}})
            assert (await reload(http, proxy.admin_url))[0] == 200
        seen = load.answered
        await until(lambda: load.answered >= seen + 20, "more load")
    assert load.dropped == []
    for client, answer in long:
        await client.rest(answer)
        assert (len(answer.text.split()), answer.events[-1]) == (600, "[DONE]")
    assert {answer.header("x-llmproxy-backend") for _, answer in long} == {id_of(first), id_of(second)}
    # The leaver's connections are closed once nothing runs there.
    await until(lambda: first.connections == 0, "no connection to the leaver")
    assert [backend.id for backend in proxy.pool().backends] == [id_of(second), id_of(third)]


async def test_a_kept_backend_keeps_its_state(stage: Stage, book: Book, http: aiohttp.ClientSession) -> None:
    first, second = await stage.backends(2)
    proxy = await start(stage, book, first.url, second.url)
    kept = proxy.backend(id_of(first))
    proxy.pool().health.drain(kept, 0.0)
    client, _ = await stage.streaming(proxy, chat(max_tokens=100_000))
    before = proxy.connections_to(id_of(second)).connects
    book.write(first.url, second.url, pool={"retry": {"attempts": 2}})
    assert (await reload(http, proxy.admin_url))[1]["changed"] is True
    assert proxy.backend(id_of(first)) is kept
    assert proxy.backend(id_of(second)).load.in_flight == 1
    # An operator's drain outlives the reload.
    for _ in range(4):
        assert (await stage.ask(proxy, chat(stream=False))).header("x-llmproxy-backend") == id_of(second)
    assert proxy.connections_to(id_of(second)).connects <= before + 1
    client.leave()


async def test_a_new_backend_gets_no_traffic_before_it_is_well(
    stage: Stage, book: Book, http: aiohttp.ClientSession
) -> None:
    first, loading = await stage.backend(), await stage.backend(fail="refuse")
    proxy = await start(stage, book, first.url)
    book.write(first.url, loading.url)
    async with Load(proxy.port, clients=4) as load:
        assert (await reload(http, proxy.admin_url))[0] == 200
        await until(lambda: load.answered >= 20, "load")
        assert set(load.backends) == {id_of(first)}
        loading.set_fault("")
        await until(lambda: id_of(loading) in load.backends, "traffic for the one that has loaded")
    assert load.dropped == []


async def test_models_pools_and_limits_change_whole(stage: Stage, book: Book, http: aiohttp.ClientSession) -> None:
    first, second = await stage.backends(2)
    proxy = await start(stage, book, first.url, models={"old": {"pool": "main", "rewrite": MODEL}})
    assert (await stage.ask(proxy, chat() | {"model": "old"})).status == 200
    pools = {"extra": {"backends": [{"url": second.url, "id": "x1"}]}}
    models = {"new": {"pool": "extra", "rewrite": MODEL}}
    server = {"limits": {"body": "1KiB", "multipart": "1KiB"}}
    book.write(first.url, pools=pools, models=models, server=server)
    assert (await reload(http, proxy.admin_url))[0] == 200
    await proxy.healthy(pool="extra")
    assert (await stage.ask(proxy, chat() | {"model": "old"})).status == 404
    assert (await stage.ask(proxy, chat() | {"model": "new"})).header("x-llmproxy-backend") == "x1"
    assert (await stage.ask(proxy, chat(pad="x" * 2000) | {"model": "new"})).status == 413
    # And a pool goes.
    book.write(first.url, models={"old": {"pool": "main", "rewrite": MODEL}})
    assert (await reload(http, proxy.admin_url))[0] == 200
    assert list(proxy.app.pools) == ["main"]
    assert (await stage.ask(proxy, chat() | {"model": "old"})).status == 200
    assert proxy.metric("llmproxy_config_reloads_total", result="ok") == 3


async def test_a_pool_that_goes_lets_its_streams_finish(stage: Stage, book: Book, http: aiohttp.ClientSession) -> None:
    first, second = await stage.backend(), await stage.backend(itl_s=0.005)
    pools = {"extra": {"backends": [{"url": second.url, "id": "x1"}]}}
    models = {MODEL: {"pool": "extra"}}
    proxy = await start(stage, book, first.url, pools=pools, models=models)
    pool = proxy.pool("extra")
    client, answer = await stage.streaming(proxy, chat(max_tokens=100))
    book.write(first.url, models={MODEL: {"pool": "main"}})
    assert (await reload(http, proxy.admin_url))[0] == 200
    assert (await stage.ask(proxy, chat(stream=False))).header("x-llmproxy-backend") == id_of(first)
    await client.rest(answer)
    assert (len(answer.text.split()), answer.events[-1]) == (100, "[DONE]")
    assert pool.retries.live == 0
    await until(lambda: second.connections == 0, "no connection to it")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pools: [", ":1: "),
        ("pools:\n  main:\n    backends: []\n", "pools.main.backends"),
        ("polls: {}\n", "did you mean"),
        ("pools: {main: {backends: ['http://127.0.0.1:1'], policy: {name: fastest}}}\n", "fastest"),
        ("pools: {main: {backends: ['http://127.0.0.1:1'], queue: {wait: soon}}}\n", "duration"),
    ],
)
async def test_a_bad_file_keeps_the_old_configuration_and_says_why(
    stage: Stage, book: Book, http: aiohttp.ClientSession, text: str, reason: str
) -> None:
    engine = await stage.backend()
    proxy = await start(stage, book, engine.url)
    before = proxy.app.config
    book.text(text)
    status, answer = await reload(http, proxy.admin_url)
    assert (status, answer["error"]["code"]) == (422, "invalid_configuration")
    assert any(reason in problem for problem in answer["error"]["problems"]), answer
    assert all(str(book.path) in problem for problem in answer["error"]["problems"])
    assert proxy.app.config is before
    assert proxy.metric("llmproxy_config_reloads_total", result="failed") == 1
    assert proxy.metric("llmproxy_config_last_reload_successful") == 0
    assert (await stage.ask(proxy, chat(stream=False))).status == 200


async def test_what_needs_a_restart_is_said(stage: Stage, book: Book, http: aiohttp.ClientSession) -> None:
    engine = await stage.backend()
    proxy = await start(stage, book, engine.url)
    book.write(engine.url, server={"port": 1})
    status, answer = await reload(http, proxy.admin_url)
    assert (status, answer["needs_restart"]) == (200, ["server.port"])
    assert (await stage.ask(proxy, chat(stream=False))).status == 200


async def test_saving_the_file_is_enough(stage: Stage, book: Book) -> None:
    first, second = await stage.backends(2)
    values = book.write(first.url)
    proxy = await stage.serve(values, load=book.load, watch=FileWatch([book.path]))
    book.write(second.url)
    await until(lambda: [backend.id for backend in proxy.pool().backends] == [id_of(second)], "the change to be seen")
    await proxy.healthy()
    assert (await stage.ask(proxy, chat(stream=False))).header("x-llmproxy-backend") == id_of(second)


async def test_sighup_of_a_serving_process_under_load(
    stage: Stage, book: Book, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    first, second = await stage.backends(2, itl_s=0.002)
    book.write(first.url, server={"drain_timeout": "20s"})
    async with ServingProcess(str(book.path)) as proxy:
        await proxy.ready()
        async with Load(proxy.port, clients=10) as load:
            await until(lambda: load.answered >= 10, "load")
            book.write(first.url, second.url, server={"drain_timeout": "20s"})
            proxy.signal(signal.SIGHUP)
            await until(lambda: id_of(second) in load.backends, "traffic for the new one")
            # Signals in bursts, and a bad file.
            for _ in range(20):
                proxy.signal(signal.SIGHUP)
            book.text("pools: {}\n")
            proxy.signal(signal.SIGHUP)
            await proxy.says("reload .* refused, the old configuration stays: .*pools")
            seen = load.answered
            await until(lambda: load.answered >= seen + 10, "more load")
        assert load.dropped == []
        async with http.get(f"{proxy.admin_url}/metrics") as response:
            page = await response.text()
        assert "\nllmproxy_config_last_reload_successful 0.0\n" in page
        proxy.signal(signal.SIGTERM)
        assert await proxy.ends() == 0
    lines = [json.loads(line) for line in (tmp_path / "access-0.jsonl").read_text().splitlines()]
    assert {line["outcome"] for line in lines} == {"ok"}


async def test_reloads_at_the_same_time_are_one_after_another(
    stage: Stage, book: Book, http: aiohttp.ClientSession
) -> None:
    engine = await stage.backend()
    proxy = await start(stage, book, engine.url)
    book.write(engine.url, pool={"queue": {"max": 3}})
    answers = await asyncio.gather(*(reload(http, proxy.admin_url) for _ in range(5)))
    assert {status for status, _ in answers} == {200}
    assert proxy.pool().settings.queue.max == 3
