"""One probe against real sockets."""

import asyncio
import random
import socket
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from llmproxy.config.backend import BackendConfig
from llmproxy.config.model import PoolConfig
from llmproxy.control.members import specs
from llmproxy.control.probe import ProbeClient
from llmproxy.control.resolver import Resolver
from llmproxy.control.sleep_state import SleepCheck
from llmproxy.core.clock import ManualClock
from llmproxy.core.ports import ProbeResult
from tests.harness.pages import Pages

TLS = Path(__file__).parent / "tls"


@pytest.fixture
async def engine():
    engine = Pages({"/health": 200})
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def tls_engine():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "engine_test.pem")
    engine = Pages({"/health": 200})
    await engine.start(tls=context)
    yield engine
    await engine.stop()


async def to_loopback(host, port):
    """A zone in which every `.test` name is this machine."""
    if not host.endswith(".test"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return ((int(socket.AF_INET), ("127.0.0.1", port)),)


@pytest.fixture
async def resolver():
    return Resolver(clock=ManualClock(), rng=random.Random(1), lookup=to_loopback)


@pytest.fixture
async def client(resolver):
    async with ProbeClient(resolver) as client:
        yield client


def spec_of(url, **options):
    return BackendConfig.model_validate({"url": url, **options}).spec("llama")


def settings(upstream_key="", **health):
    health = {"check_sleep": False, "timeout": 5} | health
    return PoolConfig.model_validate({"backends": ["http://unused"], "health": health, "upstream_key": upstream_key})


def sleep_check():
    return SleepCheck(ManualClock())


async def look(client, engine, **options):
    return await client.look(spec_of(f"http://127.0.0.1:{engine.port}"), settings(**options), sleep_check())


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (200, ProbeResult.OK),
        (503, ProbeResult.LOADING),
        (204, ProbeResult.FAILED),
        (302, ProbeResult.FAILED),
        (404, ProbeResult.FAILED),
        (429, ProbeResult.FAILED),
        (500, ProbeResult.FAILED),
    ],
)
async def test_status_becomes_a_result(client, engine, status, result):
    engine.answers["/health"] = status
    assert (await look(client, engine)).result is result
    assert engine.paths == ["/health"], "no redirect is followed, nothing else is asked"


@pytest.mark.parametrize("host", ["127.0.0.1", "engine.test"])
async def test_nobody_listening_is_refused(client, host):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sight = await client.look(spec_of(f"http://{host}:{taken.getsockname()[1]}"), settings(), sleep_check())
    assert sight.result is ProbeResult.REFUSED


async def test_an_unknown_name_has_failed(client):
    sight = await client.look(spec_of("http://nowhere.invalid:8000"), settings(), sleep_check())
    assert sight.result is ProbeResult.FAILED
    assert "nowhere.invalid" in sight.reason


async def test_silence_has_failed(client, engine):
    async def hang(request):
        await asyncio.Event().wait()

    engine.answers["/health"] = hang
    sight = await look(client, engine, timeout="50ms")
    assert (sight.result, sight.reason) == (ProbeResult.FAILED, "no answer within 0.05 s")


async def test_an_endless_body_is_not_read(client, engine):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    engine.answers["/health"] = endless
    assert (await look(client, engine)).result is ProbeResult.OK


@pytest.mark.parametrize("garbage", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000])
async def test_what_is_not_http_has_failed(client, garbage):
    async def answer(reader, writer):
        writer.write(garbage)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sight = await client.look(spec_of(f"http://127.0.0.1:{port}"), settings(), sleep_check())
    assert sight.result is ProbeResult.FAILED
    assert sight.reason


async def test_each_probe_opens_a_connection_of_its_own(client, engine):
    for _ in range(3):
        await look(client, engine)
    assert len(engine.connections) == 3


async def test_the_base_path_and_key_and_health_path_are_used(client, engine):
    engine.answers["/base/v1/models"] = 200
    spec = spec_of(f"http://127.0.0.1:{engine.port}/base")
    sight = await client.look(spec, settings(path="/v1/models", upstream_key="s3cret"), sleep_check())
    assert sight.result is ProbeResult.OK
    assert engine.requests[0].headers["Authorization"] == "Bearer s3cret"
    await look(client, engine)
    assert "Authorization" not in engine.requests[1].headers


async def test_names_go_through_the_resolver(client, engine):
    sight = await client.look(spec_of(f"http://engine.test:{engine.port}"), settings(), sleep_check())
    assert sight.result is ProbeResult.OK
    assert engine.requests[0].host == f"engine.test:{engine.port}"


async def test_certificates_are_verified(client, tls_engine):
    url = f"https://engine.test:{tls_engine.port}"
    trusted = {"ca": str(TLS / "ca.pem")}
    assert (await client.look(spec_of(url, **trusted), settings(), sleep_check())).result is ProbeResult.OK
    for spec in (
        spec_of(url),
        spec_of(f"https://other.test:{tls_engine.port}", **trusted),
        spec_of(f"https://127.0.0.1:{tls_engine.port}", **trusted),
        spec_of(url, ca=str(TLS / "missing.pem")),
    ):
        sight = await client.look(spec, settings(), sleep_check())
        assert sight.result is ProbeResult.FAILED, spec
        assert sight.reason


async def test_an_address_of_a_name_is_verified_against_the_name(client, resolver, tls_engine):
    backend = {"url": f"https://engine.test:{tls_engine.port}", "ca": str(TLS / "ca.pem"), "resolve": True}
    pool = PoolConfig.model_validate({"backends": [backend]})
    await resolver.lookup("engine.test", tls_engine.port)
    [spec] = specs("llama", pool, resolver.cached)
    assert spec.url == f"https://127.0.0.1:{tls_engine.port}"
    assert (await client.look(spec, settings(), sleep_check())).result is ProbeResult.OK
    assert tls_engine.requests[0].host == f"engine.test:{tls_engine.port}"


async def test_replaced_authorities_are_read_again_when_told(client, tls_engine, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes((TLS / "ca.pem").read_bytes())
    spec = spec_of(f"https://engine.test:{tls_engine.port}", ca=str(ca))
    assert (await client.look(spec, settings(), sleep_check())).result is ProbeResult.OK
    ca.write_text("no certificate")
    client.forget_authorities()
    assert (await client.look(spec, settings(), sleep_check())).result is ProbeResult.FAILED


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        ({"/is_sleeping": '{"is_sleeping": true}', "/is_paused": '{"is_paused": false}'}, ProbeResult.SLEEPING),
        ({"/is_sleeping": '{"is_sleeping": false}', "/is_paused": '{"is_paused": true}'}, ProbeResult.SLEEPING),
        ({"/is_sleeping": '{"is_sleeping": false}', "/is_paused": '{"is_paused": false}'}, ProbeResult.OK),
        ({"/metrics": 'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'}, ProbeResult.SLEEPING),
        ({"/metrics": 'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0\n'}, ProbeResult.OK),
        ({}, ProbeResult.OK),
        ({"/is_sleeping": 500}, ProbeResult.OK),
    ],
)
async def test_a_sleeping_engine_is_told_from_a_healthy_one(client, engine, answers, result):
    engine.answers |= answers
    assert (await look(client, engine, check_sleep=True)).result is result
    assert (await look(client, engine, check_sleep=False)).result is ProbeResult.OK


async def test_a_sleep_check_that_hangs_keeps_the_last_answer(client, engine):
    async def hang(request):
        await asyncio.Event().wait()

    spec, check = spec_of(f"http://127.0.0.1:{engine.port}"), sleep_check()
    options = settings(check_sleep=True, timeout="100ms")
    engine.answers["/is_sleeping"] = hang
    assert (await client.look(spec, options, check)).result is ProbeResult.OK
    engine.answers["/is_sleeping"] = '{"is_sleeping": true}'
    assert (await client.look(spec, settings(check_sleep=True), check)).result is ProbeResult.SLEEPING
    engine.answers["/is_sleeping"] = hang
    assert (await client.look(spec, options, check)).result is ProbeResult.SLEEPING


async def test_a_failed_probe_forgets_what_was_known_of_sleep(client, engine):
    spec, check = spec_of(f"http://127.0.0.1:{engine.port}"), sleep_check()
    engine.answers["/is_sleeping"] = '{"is_sleeping": true}'
    await client.look(spec, settings(check_sleep=True), check)
    engine.answers["/health"] = 500
    assert (await client.look(spec, settings(check_sleep=True), check)).result is ProbeResult.FAILED
    assert check.asleep is False
