"""How the emulated server treats connections: keep-alive, pipelining, old clients, and what is no HTTP."""

import asyncio

import pytest

from llmproxy.emulator import Emulator, EmulatorOptions, EngineOptions

FAST = EngineOptions(ttft_s=0.0, itl_s=0.0, prefill_s_per_token=0.0)


async def exchange(emulator: Emulator, data: bytes) -> bytes:
    """Send, then everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    writer.write(data)
    got = await reader.read(-1)
    writer.close()
    return got


async def test_idle_connections_are_closed() -> None:
    async with Emulator(EmulatorOptions(engine=FAST, keepalive_s=0.05)) as emulator:
        assert await exchange(emulator, b"") == b""
        got = await exchange(emulator, b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 OK")
        assert b"connection:" not in got


async def test_a_request_under_way_is_not_idle() -> None:
    engine = EngineOptions(ttft_s=0.5, itl_s=0.0)
    async with Emulator(EmulatorOptions(engine=engine, keepalive_s=0.25)) as emulator:
        got = await exchange(
            emulator, b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{"prompt":"x"}'
        )
        assert got.startswith(b"HTTP/1.1 200 OK")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        first = b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{"prompt":"x"}'
        second = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
        third = b"GET /is_sleeping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        got = await exchange(emulator, first + second + third)
        assert got.count(b"HTTP/1.1 200 OK") == 3
        assert got.index(b"text_completion") < got.index(b'"version"') < got.index(b"is_sleeping")
        assert got.count(b"connection: close") == 1


async def test_http_1_0_gets_no_chunks() -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        body = b'{"prompt":"x","stream":true,"max_tokens":2}'
        got = await exchange(
            emulator, b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert b"chunked" not in got
        assert got.endswith(b"data: [DONE]\n\n")


async def test_chunked_bodies_and_100_continue() -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\n"
        got = await exchange(emulator, head + b'transfer-encoding: chunked\r\n\r\ne\r\n{"prompt":"x"}\r\n0\r\n\r\n')
        assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n"])
async def test_what_is_no_http_is_400(junk: bytes) -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        assert (await exchange(emulator, junk)).startswith(b"HTTP/1.1 400 ")


async def test_bodies_have_a_bound() -> None:
    async with Emulator(EmulatorOptions(engine=FAST, body_max_bytes=10)) as emulator:
        got = await exchange(emulator, b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-length: 11\r\n\r\n12345678901")
        assert got.startswith(b"HTTP/1.1 413 ")


async def test_paths_are_decoded() -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        got = await exchange(emulator, b"GET /%76ersion?x=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 OK")
        assert emulator.requests[-1].path == "/version"
        assert emulator.requests[-1].target == "/%76ersion?x=1"


async def test_two_on_one_port_is_an_error() -> None:
    async with Emulator(EmulatorOptions(engine=FAST)) as emulator:
        with pytest.raises(OSError, match="in use"):
            await Emulator(EmulatorOptions(port=emulator.port)).start()
