"""A lab: SIGTERM of a real `llmproxy serve` under load drops nothing."""

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import yaml

from tests.harness.client import Answer, Client
from tests.harness.load import Load
from tests.harness.processes import ServingProcess
from tests.harness.proxy import settings
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until


def written(directory: Path, urls: list[str], **sections: object) -> str:
    """A configuration file over these backends, with its access log beside it."""
    backends = [{"url": url, "id": f"b{number}"} for number, url in enumerate(urls, 1)]
    pools = {"main": {"backends": backends, "health": {"interval": "200ms"}}}
    path = directory / "proxy.yaml"
    path.write_text(yaml.safe_dump(settings(pools, directory / "access.jsonl", **sections)))
    return str(path)


async def stream(stage: Stage, proxy: ServingProcess, number: int, max_tokens: int) -> tuple[Client, Answer]:
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(max_tokens=max_tokens), [("X-Request-Id", f"long-{number}")])
    answer = await client.head()
    await client.text(answer)
    return client, answer


async def test_sigterm_under_load_drops_nothing(stage: Stage, tmp_path: Path) -> None:
    engines = await stage.backends(2, itl_s=0.01)
    config = written(tmp_path, [engine.url for engine in engines], server={"drain_timeout": "20s"})
    async with ServingProcess(config) as proxy, aiohttp.ClientSession() as http:
        await proxy.ready()
        # Streams that last well beyond the signal, idle connections, and requests that come and go.
        streams = [await stream(stage, proxy, number, 250) for number in range(20)]
        idle = [await stage.client(proxy) for _ in range(5)]
        for client in idle:
            assert (await client.ask("POST", CHAT, chat(stream=False))).status == 200
        load = Load(proxy.port, clients=10, until_refused=True)
        async with load:
            await until(lambda: load.answered > 20, "some load")
            proxy.signal(signal.SIGTERM)

            async def not_ready() -> bool:
                async with http.get(f"{proxy.admin_url}/readyz") as response:
                    return response.status == 503

            await until(not_ready, "/readyz says 503")
            async with http.get(f"{proxy.admin_url}/livez") as response:
                assert response.status == 200
            await until(lambda: load.over, "a closed port")
        assert load.dropped == []
        assert load.refused == 10
        for client in idle:
            assert await client.at_end()
        assert proxy.process.returncode is None
        for client, answer in streams:
            await client.rest(answer)
            assert answer.events[-1] == "[DONE]"
            assert len(answer.text.split()) == 250
            assert await client.at_end()
        assert await proxy.ends() == 0, proxy
    log = [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
    assert len(log) == 20 + 5 + load.answered
    assert {line["outcome"] for line in log} == {"ok"}


async def test_what_outlasts_the_drain_timeout_is_told_so(stage: Stage, tmp_path: Path) -> None:
    engine = await stage.backend(itl_s=0.01)
    config = written(tmp_path, [engine.url], server={"drain_timeout": "300ms"})
    async with ServingProcess(config) as proxy:
        await proxy.ready()
        client, answer = await stream(stage, proxy, 0, 100_000)
        waiting = await stage.client(proxy)
        await waiting.send("POST", CHAT, chat(stream=False, max_tokens=100_000))
        await until(lambda: engine.in_flight == 2, "two requests under way")
        proxy.signal(signal.SIGTERM)
        await client.rest(answer)
        assert answer.events[-1]["error"]["code"] == "shutting_down"
        whole = await waiting.answer()
        assert (whole.status, whole.json["error"]["code"]) == (503, "shutting_down")
        assert await proxy.ends() == 0, proxy
        await until(lambda: engine.in_flight == 0, "a free engine")


async def test_a_second_signal_means_now(stage: Stage, tmp_path: Path) -> None:
    engine = await stage.backend(itl_s=0.01)
    config = written(tmp_path, [engine.url], server={"drain_timeout": "600s"})
    async with ServingProcess(config) as proxy:
        await proxy.ready()
        client, _ = await stream(stage, proxy, 0, 100_000)
        proxy.signal(signal.SIGTERM)
        await proxy.says("draining")
        proxy.signal(signal.SIGTERM)
        assert await proxy.ends() == 0, proxy
        client.leave()


async def test_connections_made_before_the_port_closes_are_served(stage: Stage, tmp_path: Path) -> None:
    """The kernel has accepted them: whoever connects before the listener is gone gets an answer."""
    engine = await stage.backend()
    config = written(tmp_path, [engine.url], server={"drain_timeout": "20s"})
    async with ServingProcess(config) as proxy:
        await proxy.ready()
        # Stopped, it accepts nothing itself; the kernel goes on accepting for it.
        proxy.signal(signal.SIGSTOP)
        clients = [await stage.client(proxy) for _ in range(50)]
        for client in clients:
            await client.send("POST", CHAT, chat())
        proxy.signal(signal.SIGTERM)
        proxy.signal(signal.SIGCONT)
        answers = await asyncio.gather(*(client.answer() for client in clients))
        assert {(answer.status, answer.header("connection"), answer.events[-1]) for answer in answers} == {
            (200, "close", "[DONE]")
        }
        assert await proxy.ends() == 0, proxy
        for client in clients:
            client.leave()
