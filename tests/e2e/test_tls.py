"""TLS on either side. The certificate is its own authority and names localhost and 127.0.0.1."""

import asyncio
import ssl
from pathlib import Path

import pytest

from llmproxy.core.backend import Status
from llmproxy.core.ports import ProbeResult
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

KEPT = Path(__file__).parents[1] / "unit" / "config" / "tls"
CERT, KEY = str(KEPT / "server.crt"), str(KEPT / "server.key")
SERVER = {"tls": {"cert": CERT, "key": KEY}}


@pytest.fixture
def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERT)


@pytest.fixture
def presenting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERT, KEY)
    return context


async def well(turn: Turn) -> None:
    await turn.answer(b'{"choices": []}')


async def test_clients_may_come_by_https(stage: Stage, trusting: ssl.SSLContext) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server=SERVER)
    client = await stage.client(proxy, tls=trusting)
    for _ in range(3):
        answer = await client.ask("POST", CHAT, chat(max_tokens=30))
        assert (len(answer.text.split()), answer.events[-1]) == (30, "[DONE]")
    seen = [request for request in engine.requests if request.path == CHAT]
    assert {request.header("x-forwarded-proto") for request in seen} == {"https"}
    closing = await client.ask("POST", CHAT, chat(stream=False), [("Connection", "close")])
    assert closing.status == 200
    assert await client.at_end()


async def test_plain_http_to_a_tls_port_is_no_request(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server=SERVER)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat())
    said = await asyncio.wait_for(client.reader.read(), 10.0)
    assert not said.startswith(b"HTTP/")
    assert engine.received == 0


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_by_https_is_gone_too(stage: Stage, trusting: ssl.SSLContext, reset: bool) -> None:
    engine = await stage.backend(itl_s=0.005)
    proxy = await stage.proxy(engine, server=SERVER)
    client = await stage.client(proxy, tls=trusting)
    await client.send("POST", CHAT, chat(max_tokens=100_000))
    await client.text(await client.head())
    client.leave(reset=reset)
    await until(lambda: engine.aborted == 1, "the abort")
    await proxy.at_rest()


async def test_backends_may_be_asked_by_https(stage: Stage, presenting: ssl.SSLContext) -> None:
    backend = await stage.scripted(well, tls=presenting)
    proxy = await stage.proxy({"url": backend.url, "ca": CERT})
    for _ in range(3):
        assert (await stage.ask(proxy, chat(stream=False))).status == 200
    assert proxy.connections_to("b1").connects == 1


async def test_and_are_verified(stage: Stage, presenting: ssl.SSLContext) -> None:
    backend = await stage.scripted(well, tls=presenting)
    proxy = await stage.proxy(backend.url, healthy=False)
    await until(lambda: proxy.metric("llmproxy_probes_total", result="failed") >= 1, "a probe that failed")
    assert proxy.backend("b1").status is not Status.HEALTHY
    assert (await stage.ask(proxy, chat(stream=False))).status == 503
    # The data plane does not trust it either, should somebody think it well.
    proxy.pool().health.probed(proxy.backend("b1"), ProbeResult.OK, proxy.app._clock())
    answer = await stage.ask(proxy, chat(stream=False))
    assert (answer.status, answer.header("x-llmproxy-error")) == (502, "upstream_unreachable")
    assert backend.turns == []


async def test_many_https_clients_at_once(stage: Stage, trusting: ssl.SSLContext) -> None:
    proxy = await stage.proxy(await stage.backend(), server=SERVER)

    async def one() -> int:
        client = await stage.client(proxy, tls=trusting)
        answer = await client.ask("POST", CHAT, chat(max_tokens=5))
        return len(answer.text.split())

    assert await asyncio.gather(*(one() for _ in range(20))) == [5] * 20
