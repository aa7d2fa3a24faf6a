"""Connections to a backend, over real sockets on loopback and on both loops: kept, retired, refused, given up."""

import asyncio
import contextlib
import socket
import ssl

import pytest
import uvloop

from llmproxy.core.clock import ManualClock
from llmproxy.core.outcome import Outcome
from llmproxy.core.step import Steps
from llmproxy.wire.connections import Connecting, ConnectionPool, UpstreamLost
from llmproxy.wire.deadlines import NEVER, Deadlines
from llmproxy.wire.upstream import UpstreamConnection
from tests.harness.mock_relay import Backend, Exchange
from tests.harness.mock_wire import feed, settle
from tests.harness.waiting import until
from tests.wire.answers_corpus import SIZED

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Site:
    """A server on loopback that accepts, counts, and says nothing, and a pool of connections to it."""

    def __init__(self, **options):
        self.options = options
        self.accepted = 0
        self.open = set()
        self.on_accept = lambda writer: None

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.clock = ManualClock(100.0)
        self.deadlines = Deadlines(loop, self.clock)
        self.pool = ConnectionPool(
            "127.0.0.1", self.port, loop=loop, clock=self.clock, deadlines=self.deadlines, **self.options
        )
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()
        self.pool.close()
        await until(lambda: self.pool.open == 0, "all our connections are closed")
        await until(lambda: not self.open, "the server sees all of them closed")
        assert len(self.deadlines) == 0

    async def _accept(self, reader, writer):
        self.accepted += 1
        self.open.add(writer)
        self.on_accept(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.open.discard(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def drive(loop, story):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(story, 30))


async def opened(pool):
    """The connection, or the error, that a pool's `connect` comes to."""
    return await outcome_of(pool.connect())


async def outcome_of(connecting):
    outcome = []

    async def wait():
        outcome.append(await connecting.signal)

    steps = Steps(wait(), lambda error: outcome.append(error) if error else None)
    steps.resume()
    await until(lambda: steps.ended, "connected, or not")
    return outcome[0]


@pytest.mark.parametrize("loop", LOOPS)
def test_opened_kept_and_taken_again(loop):
    async def story():
        async with Site() as site:
            first, second = await opened(site.pool), await opened(site.pool)
            assert isinstance(first, UpstreamConnection)
            assert not first.reused
            assert (site.pool.open, site.pool.connects) == (2, 2)
            assert site.pool.take() is None
            site.pool.put(first)
            site.pool.put(second)
            # The most recently used one first: the others may retire.
            assert site.pool.take() is second
            assert site.pool.take() is first
            assert first.reused
            assert site.pool.take() is None
            await until(lambda: site.accepted == 2, "both accepted")
            first.abort()
            second.abort()

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
def test_closed_by_the_backend_while_idle(loop):
    async def story():
        async with Site() as site:
            site.pool.put(await opened(site.pool))
            await until(lambda: site.open, "accepted")
            for writer in tuple(site.open):
                writer.close()
            await until(lambda: site.pool.open == 0, "noticed")
            assert "idle=0" in repr(site.pool)
            assert site.pool.take() is None

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
def test_refused(loop):
    async def story():
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            async with Site() as site:
                site.pool._port = closed.getsockname()[1]
                error = await opened(site.pool)
                assert isinstance(error, UpstreamLost)
                assert error.outcome is Outcome.REFUSED

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("reset", [False, True])
def test_closed_as_soon_as_it_is_open(loop, reset):
    """The end may come before its first user: then it must not be left waiting for an answer."""

    async def story():
        async with Site() as site:
            site.on_accept = lambda writer: writer.transport.abort() if reset else writer.close()
            for _ in range(30):
                told = []

                async def ask(told=told):
                    connection = await site.pool.connect().signal
                    connection.send(Listening(told), b"x", b"", bodyless=False)

                Steps(ask(), lambda error, told=told: told.append(error.outcome) if error else None).resume()
                await until(lambda told=told: told, "told")
                assert told[0] in (Outcome.RESET, Outcome.REFUSED)

    drive(loop, story())


class Listening:
    """As much of a relay as an end needs."""

    def __init__(self, lost):
        self.lost = lost.append


async def test_gone_before_the_signal():
    """Its end and its beginning come in one turn of the loop."""
    backend = Backend()

    async def connect():
        transport = backend.connect()
        transport.lose()
        return transport.protocol

    got = await outcome_of(Connecting(asyncio.get_running_loop().create_task(connect())))
    assert isinstance(got, UpstreamLost)
    assert got.outcome is Outcome.REFUSED


@pytest.mark.parametrize("loop", LOOPS)
def test_no_answer_to_connect(loop):
    async def story():
        async def nowhere(host, port):
            await asyncio.Event().wait()

        async with Site(connect_s=0.01, resolve=nowhere) as site:
            error = await opened(site.pool)
            assert error.outcome is Outcome.CONNECT_TIMEOUT

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
def test_each_address_is_tried(loop):
    async def story():
        async def resolve(host, port):
            return ["127.0.0.2", "127.0.0.3", "127.0.0.1"]

        async with Site(resolve=resolve) as site:
            # Only the last of them listens.
            connection = await opened(site.pool)
            assert isinstance(connection, UpstreamConnection)
            connection.abort()

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("problem", [OSError("unknown name"), []])
def test_no_address(loop, problem):
    async def story():
        async def resolve(host, port):
            if isinstance(problem, Exception):
                raise problem
            return problem

        async with Site(resolve=resolve) as site:
            assert (await opened(site.pool)).outcome is Outcome.REFUSED

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
def test_tls_with_someone_who_does_not_speak_it(loop):
    async def story():
        async with Site(tls=ssl.create_default_context(), server_name="a.test") as site:
            site.on_accept = lambda writer: writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            error = await opened(site.pool)
            assert error.outcome is Outcome.REFUSED
            assert "TLS" in str(error)

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("turns", range(12))
def test_given_up_at_every_turn(loop, turns):
    """Cancelled at every point of its making: no socket is left, and a waiting exchange has gone already."""

    async def story():
        async def resolve(host, port):
            await asyncio.sleep(0)
            return ["127.0.0.1"]

        async with Site(resolve=resolve) as site:
            got = []
            connecting = site.pool.connect()

            async def wait():
                got.append(await connecting.signal)

            steps = Steps(wait(), lambda error: None)
            steps.resume()
            for _ in range(turns):
                await asyncio.sleep(0)
            if not got:
                steps.cancel()
                connecting.cancel()
                connecting.cancel()
            await until(lambda: connecting._task.done(), "given up")
            await settle()
            for connection in got:
                connection.abort()
            assert steps.ended

    drive(loop, story())


@pytest.mark.parametrize("loop", LOOPS)
def test_given_up_just_when_it_is_there(loop):
    """Between the task's end and its being told of."""

    async def story():
        async with Site() as site:
            connecting = site.pool.connect()
            task = connecting._task
            task.remove_done_callback(connecting._done)
            await until(task.done, "connected")
            connecting.cancel()
            await until(lambda: site.pool.open == 0, "closed")

    drive(loop, story())


# -- without sockets ----------------------------------------------------------------------------------------------


async def idle_connections(backend, count, apart_s=0.0):
    """`count` idle connections, the first used longest ago."""
    transports = [backend.connect() for _ in range(count)]
    for transport in transports:
        Exchange(transport)
        await feed(transport, SIZED)
        backend.clock.advance(apart_s)
    return transports


async def test_retired_before_the_backend_would_close_it():
    backend = Backend()
    assert backend.pool.deadline == NEVER
    first, second, third = await idle_connections(backend, 3, 1.5)
    assert backend.pool.deadline == 504.0
    backend.deadlines.sweep(503.9)
    assert backend.idle == 3
    backend.deadlines.sweep(504.0)
    await settle()
    assert [t.lost for t in (first, second, third)] == [True, False, False]
    assert backend.pool.deadline == 505.5
    backend.deadlines.sweep(600.0)
    await settle()
    assert (backend.pool.open, backend.pool.deadline) == (0, NEVER)


async def test_too_old_to_be_taken():
    """The sweep is coarse; `take` is not."""
    backend = Backend()
    old, young = await idle_connections(backend, 2, 3.0)
    backend.clock.now = 507.0
    assert backend.pool.take() is young.protocol
    backend.pool.put(young.protocol)
    backend.clock.now = 511.1
    assert backend.pool.take() is None
    await settle()
    assert old.lost
    assert young.lost
    backend.assert_clean()


async def test_the_last_used_first():
    backend = Backend()
    transports = await idle_connections(backend, 3)
    assert [backend.pool.take() for _ in range(4)] == [*(t.protocol for t in reversed(transports)), None]


async def test_a_closed_pool():
    backend = Backend()
    (idle,) = await idle_connections(backend, 1)
    busy = backend.connect()
    exchange = Exchange(busy)
    backend.pool.close()
    await settle()
    assert idle.lost
    assert not busy.lost
    await feed(busy, SIZED)
    assert exchange.told_client == b"hello"
    assert busy.lost
    assert (backend.pool.open, backend.idle, len(backend.deadlines)) == (0, 0, 0)


async def test_a_dying_connection_is_not_taken():
    backend = Backend()
    one, other = await idle_connections(backend, 2)
    other.abort()
    assert backend.pool.take() is one.protocol
    await settle()
    assert backend.idle == 0
    assert backend.pool.open == 1
