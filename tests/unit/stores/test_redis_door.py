"""Whose door is knocked at next, when some of those who could be asked are silent, wrong or of another opinion."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable

import hiredis
import pytest

from llmproxy.core.redis_url import parse_redis_url
from llmproxy.stores.redis_client import RedisClient
from llmproxy.stores.redis_door import RedisDoor
from llmproxy.stores.redis_trouble import in_words


class Answering:
    """A port where each command is answered by `answer`, in Redis's protocol; None is silence."""

    def __init__(self, answer: Callable[[list[bytes]], bytes | None]) -> None:
        self._answer = answer
        self.asked: list[list[bytes]] = []
        self.closed = 0

    async def __aenter__(self) -> "Answering":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        try:
            while data := await reader.read(10_000):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.asked.append(command)
                    if (said := self._answer(command)) is not None:
                        writer.write(said)
        except ConnectionError:
            pass
        finally:
            self.closed += 1
            writer.close()


def names(port: int) -> Callable[[list[bytes]], bytes]:
    return lambda _: b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    async with Answering(lambda _: b"+OK\r\n") as server:
        yield server


async def test_silent_sentinels_cost_a_moment_and_are_asked_last_from_then_on(server: Answering) -> None:
    silent = [Answering(lambda _: None) for _ in range(2)]
    async with silent[0], silent[1], Answering(names(server.port)) as sentinel:
        ports = [one.port for one in (*silent, sentinel)]
        door = RedisDoor(parse_redis_url("sentinel://" + ",".join(f"127.0.0.1:{port}" for port in ports) + "/m"))
        for _ in range(3):
            # As long as a proxy gives it.
            async with asyncio.timeout(1.0):
                link = await door.open()
            assert await link.ask("PING") == b"OK"
            link.abort()
        assert [len(one.asked) for one in (*silent, sentinel)] == [1, 1, 3]


async def test_sentinels_that_know_of_none(server: Answering) -> None:
    async with Answering(lambda _: b"*-1\r\n") as sentinel:
        door = RedisDoor(parse_redis_url(f"sentinel://127.0.0.1:{sentinel.port}/other"))
        with pytest.raises(ConnectionError, match="knows no 'other'"):
            await door.open()


@pytest.mark.parametrize("host", [b"127.0.0.1", b"", b"?"])
async def test_where_a_node_sends_us(server: Answering, host: bytes) -> None:
    """Without a host, or with a `?`, it is the node's own."""
    moved = b"-MOVED 5 %s:%d\r\n" % (host, server.port)
    async with Answering(lambda _: moved) as other:
        client = RedisClient(f"cluster://127.0.0.1:{other.port}")
        assert await client.ask("GET", "x") == b"OK"
        assert len(other.asked) == 1
        await client.aclose()


async def test_nodes_that_send_us_to_one_another_are_not_followed_for_ever() -> None:
    ports: list[int] = []
    nodes = [Answering(lambda _, other=other: b"-MOVED 5 127.0.0.1:%d\r\n" % ports[other]) for other in (1, 0)]
    async with nodes[0] as first, nodes[1] as second:
        ports += [first.port, second.port]
        client = RedisClient(f"cluster://127.0.0.1:{first.port}")
        for _ in range(2):
            with pytest.raises(hiredis.ReplyError, match="MOVED"):
                await client.ask("GET", "x")
        assert len(first.asked) + len(second.asked) == 2 * 6
        await client.aclose()


@pytest.mark.parametrize("said", ["MOVED", "MOVED 5 x", "MOVED 5 x:y", "MOVED 5 x:1 z", "ASK 5 x:1", ""])
def test_what_sends_us_nowhere(said: str) -> None:
    assert not RedisDoor(parse_redis_url("cluster://a")).redirected(hiredis.ReplyError(said))


async def test_a_failed_command_costs_the_connection_and_no_more(server: Answering) -> None:
    says: list[bytes | None] = [b"+OK\r\n", b"-READONLY You can't\r\n", b"+OK\r\n", None, b"+OK\r\n"]
    async with Answering(lambda _: says.pop(0)) as redis:
        client = RedisClient(f"redis://127.0.0.1:{redis.port}", timeout_s=0.2)
        assert await client.ask("A") == b"OK"
        with pytest.raises(hiredis.ReplyError):
            await client.ask("B")
        assert await client.ask("C") == b"OK"
        with pytest.raises(TimeoutError):
            await client.ask("D")
        assert await client.ask("E") == b"OK"
        await client.aclose()
        assert redis.asked == [[b"A"], [b"B"], [b"C"], [b"D"], [b"E"]]


def test_passwords_that_redis_repeats_are_not_told_on() -> None:
    said = hiredis.ReplyError("ERR unknown command 'AUTH', with args beginning with: 'user' 'secret' ")
    assert in_words(said) == "ERR unknown command 'AUTH'"


def test_reasons_deep_down_are_told() -> None:
    lost = ConnectionError("lost")
    lost.__cause__ = ssl.SSLError(1, "wrong version number")
    assert in_words(lost) == "TLS fails: wrong version number"
    assert in_words(TimeoutError()) == "no answer in time"
    assert in_words(ConnectionError()) == "ConnectionError"
