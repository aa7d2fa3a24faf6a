"""The emulated server as a process: its address line, its signals, its death."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest


@asynccontextmanager
async def emulated(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A running process and its URL; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmproxy.emulator", "--port", "0", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, line
        yield process, found[0]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def ask(streaming: bool) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "hello"}], "stream": streaming, "max_tokens": 100_000}


async def first_token(response: aiohttp.ClientResponse) -> bytes:
    got = b""
    while b'"content":" ' not in got:
        piece = await response.content.readany()
        assert piece, got
        got += piece
    return got


async def test_sigterm_aborts_what_runs_and_exits_0() -> None:
    async with (
        emulated("--ttft", "0", "--itl", "2", "--name", "left") as (process, url),
        aiohttp.ClientSession() as http,
    ):
        chat = f"{url}/v1/chat/completions"
        whole = asyncio.ensure_future(http.post(chat, json=ask(False)))
        async with http.post(chat, json=ask(True)) as response:
            got = await first_token(response)
            assert response.headers["x-emulator"] == "left"
            await until_running(http, url, 2)
            process.send_signal(signal.SIGTERM)
            got += await response.content.read()
        last, done = got.decode().strip().split("\n\n")[-2:]
        assert done == "data: [DONE]"
        assert json.loads(last[6:])["choices"][0]["finish_reason"] == "abort"
        async with await whole as response:
            answer = await response.json()
        assert (response.status, answer["choices"][0]["finish_reason"]) == (200, "abort")
        assert len(answer["choices"][0]["message"]["content"]) > 0
        assert await process.wait() == 0


async def until_running(http: aiohttp.ClientSession, url: str, count: int) -> None:
    """Wait until that many requests decode."""
    for _ in range(1000):
        async with http.get(f"{url}/emulator/state") as response:
            if (await response.json())["phases"]["decoding"] == count:
                return
        await asyncio.sleep(0.005)
    pytest.fail(f"{count} requests never ran at once")


async def test_sigterm_with_a_timeout_lets_running_requests_finish() -> None:
    arguments = ("--ttft", "0", "--itl", "5", "--shutdown-timeout", "30")
    async with emulated(*arguments) as (process, url), aiohttp.ClientSession() as http:
        chat = f"{url}/v1/chat/completions"
        async with http.post(chat, json=ask(True) | {"max_tokens": 100}) as response:
            got = await first_token(response)
            process.send_signal(signal.SIGTERM)
            status, text = 200, ""
            while status == 200:
                async with http.post(chat, json=ask(False) | {"max_tokens": 1}) as refused:
                    status, text = refused.status, await refused.text()
            assert status == 500
            assert "cannot schedule new futures after shutdown" in text
            async with http.get(f"{url}/health") as health:
                assert health.status == 200
            got += await response.content.read()
        assert got.count(b'"content":" ') == 100
        assert b'"finish_reason":"length"' in got
        assert got.endswith(b"data: [DONE]\n\n")
        assert await process.wait() == 0


async def test_killed_it_is_gone() -> None:
    async with emulated("--ttft", "0", "--itl", "2") as (process, url), aiohttp.ClientSession() as http:
        async with http.post(f"{url}/v1/chat/completions", json=ask(True)) as response:
            await first_token(response)
            process.kill()
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
        await process.wait()
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{url}/health")


async def test_die_after_works_on_uvloop_too() -> None:
    async with (
        emulated("--ttft", "0", "--itl", "1", "--fail", "die_after=3") as (_, url),
        aiohttp.ClientSession() as http,
    ):
        got, cut = b"", False
        async with http.post(f"{url}/v1/chat/completions", json=ask(True)) as response:
            try:
                while piece := await response.content.readany():
                    got += piece
            except aiohttp.ClientError:
                cut = True
        assert cut
        assert got.count(b'"content":" ') == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--fail", "nonsense"), "unknown fault"), (("--port", "99999"), "--port"), (("--itl", "-1"), "--itl")],
)
async def test_bad_options_are_told(arguments: tuple[str, ...], complaint: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmproxy.emulator", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert complaint in said.decode()


async def test_a_taken_port_is_told() -> None:
    async with emulated() as (_, url):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "llmproxy.emulator", "--port", url.rpartition(":")[2], stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == 1
        assert "cannot listen on 127.0.0.1 port" in said.decode()
