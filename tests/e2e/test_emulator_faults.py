"""Each fault as it is seen on the socket."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmproxy.emulator import Emulator, EmulatorOptions, EngineOptions, FaultError

FAST = EngineOptions(ttft_s=0.005, itl_s=0.001, prefill_s_per_token=0.0)
FULL = 6  # tokens asked for


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"never came: {what}"
        await asyncio.sleep(0.002)


class Client:
    """A connection that keeps every byte it got, and how it ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.got = b""
        self.was_reset = False

    @classmethod
    async def to(cls, emulator: Emulator) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", emulator.port))

    def ask(self, streaming: bool, fault: str = "", path: str = "/v1/completions") -> None:
        body = json.dumps({"prompt": "hello", "stream": streaming, "max_tokens": FULL}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-request-id: r1\r\n"
        if fault:
            head += f"x-emulate-fault: {fault}\r\n"
        self.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def get(self, path: str, fault: str = "") -> None:
        extra = f"x-emulate-fault: {fault}\r\n" if fault else ""
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n{extra}\r\n".encode())

    async def to_the_end(self) -> bytes:
        """Everything until the connection ends."""
        try:
            while piece := await self.reader.read(65536):
                self.got += piece
        except ConnectionResetError:
            self.was_reset = True
        return self.got

    async def up_to(self, mark: bytes) -> bytes:
        while mark not in self.got:
            piece = await self.reader.read(65536)
            assert piece, f"ended before {mark!r}: {self.got!r}"
            self.got += piece
        return self.got

    def words(self) -> int:
        return self.got.count(b'"text":" ')

    @property
    def body(self) -> Any:
        return json.loads(self.got.partition(b"\r\n\r\n")[2])

    def leave(self) -> None:
        self.writer.close()


@pytest.fixture
def options() -> EmulatorOptions:
    return EmulatorOptions(engine=FAST)


async def ask(emulator: Emulator, streaming: bool, fault: str) -> Client:
    client = await Client.to(emulator)
    client.ask(streaming, fault)
    return client


STREAMING = pytest.mark.parametrize("streaming", [True, False])


@STREAMING
async def test_hang(options: EmulatorOptions, streaming: bool) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, streaming, "hang")
        await until(lambda: emulator.in_flight == 1, "the request")
        other = await ask(emulator, True, "")
        await other.up_to(b"[DONE]")
        client.leave()
        other.leave()
        await until(lambda: emulator.aborted == 1, "its leaving")
        assert await client.to_the_end() == b""


@STREAMING
async def test_reset(options: EmulatorOptions, streaming: bool) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, streaming, "reset")
        assert await client.to_the_end() == b""
        assert client.was_reset
        assert (emulator.in_flight, emulator.aborted, emulator.served) == (0, 0, 0)
        client.leave()


@STREAMING
async def test_reset_after_headers(options: EmulatorOptions, streaming: bool) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, streaming, "reset_after_headers")
        got = await client.to_the_end()
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert got.endswith(b"\r\n\r\n")
        assert client.was_reset
        client.leave()


@pytest.mark.parametrize("fault", ["stall", "sleep"])
@STREAMING
async def test_a_head_and_then_nothing(options: EmulatorOptions, streaming: bool, fault: str) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, streaming, fault)
        got = await client.up_to(b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        other = await ask(emulator, True, "")
        await other.up_to(b"[DONE]")
        assert emulator.in_flight == 1
        assert client.got.endswith(b"\r\n\r\n")
        client.leave()
        other.leave()


async def test_a_standing_sleep_is_told_and_a_stall_is_not(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        for spec, told in (("sleep", True), ("stall", False), ("", False)):
            emulator.set_fault(spec)
            client = await Client.to(emulator)
            client.get("/is_sleeping")
            await client.up_to(b"}")
            assert client.body == {"is_sleeping": told}
            client.leave()
        emulator.set_fault("sleep")
        client = await Client.to(emulator)
        client.get("/metrics")
        assert b'sleep_state="awake"} 0.0' in await client.up_to(b"request_queue_time_seconds_sum")
        client.leave()


async def test_garbage(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, True, "garbage")
        got = await client.to_the_end()
        assert got
        assert not got.startswith(b"HTTP/")
        client.leave()


@pytest.mark.parametrize("status", [500, 503, 429, 418])
async def test_status(options: EmulatorOptions, status: int) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, True, f"status={status}+7")
        await client.up_to(b"}}")
        assert client.got.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"\r\nretry-after: 7\r\n" in client.got
        assert client.body["error"]["code"] == status
        client.got = b""
        client.ask(True, f"status={status}")
        await client.up_to(b"}}")
        assert b"retry-after" not in client.got
        client.leave()


async def test_die_after_some_tokens(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        for tokens in (0, 1, 3, FULL):
            client = await ask(emulator, True, f"die_after={tokens}")
            got = await client.to_the_end()
            assert client.was_reset
            assert client.words() == tokens
            assert b'"finish_reason":"' not in got
            assert got.startswith(b"HTTP/1.1 200 OK")
            assert emulator.site.engine.running == 0
            client.leave()


async def test_die_after_without_a_stream_sends_nothing(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, False, "die_after=2")
        assert await client.to_the_end() == b""
        assert client.was_reset
        client.leave()


async def test_abort_after(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        for tokens in (0, 2):
            client = await ask(emulator, True, f"abort_after={tokens}")
            await client.up_to(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert client.words() == tokens
            assert client.got.count(b'"finish_reason":"abort"') == 1
            client.leave()
        client = await ask(emulator, False, "abort_after=2")
        await client.up_to(b"kv_transfer_params")
        choice = client.body["choices"][0]
        assert client.got.startswith(b"HTTP/1.1 200 ")
        assert (choice["finish_reason"], len(choice["text"])) == ("abort", 8)
        assert emulator.site.stats.finished["abort"] == 3
        assert emulator.aborted == 0
        client.leave()


async def test_error_event_after(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, True, "error_event_after=2")
        await client.up_to(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert client.words() == 2
        event = client.got[client.got.index(b'data: {"error"') :].partition(b"\n")[0]
        assert json.loads(event[6:])["error"]["code"] == 500
        client.leave()
        client = await ask(emulator, False, "error_event_after=2")
        await client.up_to(b"}}")
        assert client.got.startswith(b"HTTP/1.1 500 ")
        client.leave()


async def test_truncate_after(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, True, "truncate_after=2")
        await client.up_to(b"\r\n0\r\n\r\n")
        assert client.words() == 2
        assert b"[DONE]" not in client.got
        assert b'"finish_reason":"' not in client.got
        client.leave()
        client = await ask(emulator, False, "truncate_after=2")
        head, _, body = (await client.to_the_end()).partition(b"\r\n\r\n")
        assert not client.was_reset
        announced = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        assert 0 < len(body) < announced
        client.leave()


async def test_stall_after(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, True, "stall_after=2")
        while client.words() < 2:
            client.got += await client.reader.read(65536)
        other = await ask(emulator, True, "")
        await other.up_to(b"[DONE]")
        assert client.words() == 2
        assert emulator.in_flight == 1
        client.leave()
        other.leave()
        await until(lambda: emulator.in_flight == 0, "its leaving")


async def test_slow_is_slower_than_the_others(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        slow = await ask(emulator, True, "slow=10000")
        await until(lambda: emulator.site.engine.running == 1, "the slow one")
        other = await ask(emulator, True, "slow=1")
        await other.up_to(b"[DONE]")
        assert emulator.in_flight == 1
        slow.leave()
        other.leave()


async def test_comments_come_before_the_first_token_only() -> None:
    engine = EngineOptions(ttft_s=0.5, itl_s=0.03, prefill_s_per_token=0.0)
    async with Emulator(EmulatorOptions(engine=engine)) as emulator:
        client = await ask(emulator, True, "comments=10")
        await client.up_to(b"[DONE]")
        before, _, after = client.got.partition(b"data: ")
        assert before.count(b": keep-alive\n\n") >= 2
        assert b": keep-alive" not in after
        client.leave()


@STREAMING
async def test_surplus_follows_the_answer(options: EmulatorOptions, streaming: bool) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, streaming, "surplus")
        await client.up_to(b"\r\n\r\nsurplus")
        assert client.got.count(b"HTTP/1.1 200 OK") == 2
        client.leave()


async def test_faults_stand_until_cleared_over_http(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        client = await Client.to(emulator)

        async def set_fault(spec: str) -> Any:
            body = json.dumps({"spec": spec}).encode()
            client.got = b""
            client.writer.write(
                b"POST /emulator/fault HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
            await client.up_to(b"}")
            return client.body

        assert await set_fault("status=500*1,status=503") == {"spec": "status=500*1,status=503"}
        assert emulator.state()["fault"] == "status=500*1,status=503"
        seen = []
        for _ in range(3):
            client.got = b""
            client.ask(True)
            await client.up_to(b"}}")
            seen.append(client.got.split(b" ")[1])
        assert seen == [b"500", b"503", b"503"]
        assert "unknown fault" in (await set_fault("nonsense"))["error"]["message"]
        assert emulator.state()["fault"] == "status=500*1,status=503"
        await set_fault("")
        client.got = b""
        client.ask(True)
        await client.up_to(b"[DONE]")
        client.leave()


async def test_faults_keep_to_their_routes() -> None:
    async with Emulator(EmulatorOptions(engine=FAST, fail="status=500,status=503@health")) as emulator:
        client = await Client.to(emulator)
        for path, status in (("/health", b"503"), ("/v1/models", b"200"), ("/emulator/state", b"200")):
            client.got = b""
            client.get(path)
            await client.up_to(b"}")
            assert client.got.split(b" ")[1] == status, path
        client.leave()


async def test_a_bad_fault_header_is_told(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        client = await ask(emulator, True, "nonsense")
        await client.up_to(b"}}")
        assert client.got.startswith(b"HTTP/1.1 400 ")
        assert "unknown fault 'nonsense'" in client.body["error"]["message"]
        client.leave()


def test_a_bad_spec_is_refused_at_once() -> None:
    with pytest.raises(FaultError):
        EmulatorOptions(fail="nonsense")


async def test_refuse_stops_listening_and_ends_idle_connections_only() -> None:
    engine = EngineOptions(ttft_s=0.0, itl_s=0.001, prefill_s_per_token=0.0)
    async with Emulator(EmulatorOptions(engine=engine, keepalive_s=3600)) as emulator:
        idle, busy = await Client.to(emulator), await Client.to(emulator)
        idle.get("/version")
        await idle.up_to(b"}")
        busy.ask(True, "stall_after=1")
        while busy.words() < 1:
            busy.got += await busy.reader.read(65536)
        port = emulator.port
        emulator.set_fault("refuse")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await idle.to_the_end()
        assert not idle.was_reset
        assert emulator.in_flight == 1
        emulator.set_fault("")
        await emulator.ready()
        again = await ask(emulator, True, "")
        await again.up_to(b"[DONE]")
        assert emulator.port == port
        for client in (idle, busy, again):
            client.leave()


async def test_refuse_for_a_while(options: EmulatorOptions) -> None:
    async with Emulator(options) as emulator:
        emulator.set_fault("refuse=0.05")
        assert not emulator.listening
        await emulator.ready()
        client = await ask(emulator, True, "")
        await client.up_to(b"[DONE]")
        client.leave()


async def test_loading_refuses_and_then_listens() -> None:
    async with Emulator(EmulatorOptions(engine=FAST, startup_s=3600)) as emulator:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", emulator.port)
    async with Emulator(EmulatorOptions(engine=FAST, startup_s=0.02)) as emulator:
        assert not emulator.listening
        await emulator.ready()
        client = await ask(emulator, True, "")
        await client.up_to(b"[DONE]")
        client.leave()


async def test_killed_it_resets_and_refuses_and_can_come_back() -> None:
    async with Emulator(EmulatorOptions(engine=EngineOptions(ttft_s=3600))) as emulator:
        client, idle = await ask(emulator, True, ""), await Client.to(emulator)
        await client.up_to(b"\r\n\r\n")
        emulator.kill()
        await client.to_the_end()
        await idle.to_the_end()
        assert client.was_reset
        assert idle.was_reset
        assert (emulator.in_flight, emulator.aborted, emulator.site.engine.running) == (0, 0, 0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", emulator.port)
        await emulator.revive()
        again = await Client.to(emulator)
        again.get("/health")
        await again.up_to(b"\r\n\r\n")
        for each in (client, idle, again):
            each.leave()
