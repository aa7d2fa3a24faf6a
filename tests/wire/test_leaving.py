"""Clients that leave, at every phase and in every way: what they asked for is abandoned, and nothing is left behind."""

import pytest

from tests.harness.mock_wire import RecordingHandler, Wire, answers, assert_refused, feed, hang_up, settle
from tests.wire.requests_corpus import CHUNKED, GOLDEN, SIMPLE

BODY = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234567890"
TALK = SIMPLE + BODY + CHUNKED + b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n" + GOLDEN["h2c upgrade with a body"] + SIMPLE
STREAMED = -1


def by_fin(transport):
    if not transport.protocol.eof_received():
        transport.close()
        transport.drain()


def by_reset(transport):
    transport.lose(ConnectionResetError())


@pytest.mark.parametrize("leave", [by_fin, by_reset])
@pytest.mark.parametrize("limit", [1 << 20, STREAMED], ids=["held", "streamed"])
@pytest.mark.parametrize("answered", [0, 2, 9])
async def test_at_every_byte(leave, limit, answered):
    """`answered`: how many requests are answered before."""
    for position in range(len(TALK) + 1):
        wire = Wire(RecordingHandler(limit=limit, later=True))
        transport = wire.connect()
        await feed(transport, TALK[:position])
        for turn in range(answered):
            if len(wire.handler.exchanges) > turn:
                wire.handler.exchanges[turn].answer()
                await settle()
        running = wire.handler.exchanges[answered:]
        leave(transport)
        await settle()
        assert transport.lost
        assert len(running) <= 1
        assert all(exchange.abandoned for exchange in running)
        assert len(wire.handler.exchanges) <= answered + 1
        wire.assert_clean()


@pytest.mark.parametrize("leave", [by_fin, by_reset])
async def test_with_the_answer_under_way(leave):
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, BODY)
    (exchange,) = wire.handler.exchanges
    transport.write(b"x" * 70_000)
    assert exchange.flows == [True]
    leave(transport)
    await settle()
    assert exchange.abandoned
    assert exchange.flows == [True] or leave is by_fin
    wire.assert_clean()


async def test_with_an_answer_that_it_does_not_take():
    wire = Wire()
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, SIMPLE)
    assert not transport.protocol.eof_received()
    transport.close()
    wire.pass_time(59)
    assert not transport.lost
    wire.pass_time(2)
    await settle()
    assert transport.lost
    wire.assert_clean()


@pytest.mark.parametrize("leave", [by_fin, by_reset])
async def test_while_lingering(leave):
    wire = Wire()
    transport = wire.connect()
    await feed(transport, b"bad\r\n\r\n")
    leave(transport)
    await settle()
    wire.assert_clean()


async def test_nothing_is_begun_for_a_client_that_left():
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, SIMPLE + SIMPLE + SIMPLE)
    (exchange,) = wire.handler.exchanges
    exchange.answer()
    by_fin(transport)
    await settle()
    assert len(wire.handler.seen) == 1
    wire.assert_clean()


@pytest.mark.parametrize("data", [SIMPLE, GOLDEN["h2c upgrade"], SIMPLE + SIMPLE])
async def test_a_fault_of_ours_is_not_the_clients(data):
    """It goes up to the loop, which closes the connection; the client is not told that it was malformed."""
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()

    def fail(connection, request):
        raise ZeroDivisionError

    wire.handler.begin = fail
    with pytest.raises(ZeroDivisionError):
        transport.protocol.data_received(data)
    assert transport.sent == b""
    by_reset(transport)
    wire.assert_clean()


async def test_late_answers_go_nowhere():
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, SIMPLE)
    down = transport.protocol
    by_reset(transport)
    down.write(b"too late")
    assert transport.sent == b""
    wire.assert_clean()


async def test_too_many_connections():
    wire = Wire(max_connections=2)
    first, second, third = wire.connect(), wire.connect(), wire.connect()
    await settle()
    assert assert_refused(bytes(third.sent)) == 503
    assert wire.listener.refused == 1
    await feed(third, SIMPLE)
    assert not wire.handler.seen
    await hang_up(first)
    await hang_up(third)
    fourth = wire.connect()
    await feed(fourth, SIMPLE)
    assert len(answers(bytes(fourth.sent), [b"GET"])) == 1
    await hang_up(second)
    await hang_up(fourth)
    assert wire.listener.accepted == 4
    wire.assert_clean()


async def test_draining_closes_only_what_is_idle():
    wire = Wire(RecordingHandler(later=True))
    idle, reading, running, queued = (wire.connect() for _ in range(4))
    await feed(reading, SIMPLE[:5])
    await feed(running, SIMPLE)
    await feed(queued, SIMPLE + SIMPLE)
    wire.listener.close_idle()
    await settle()
    assert [t.lost for t in (idle, reading, running, queued)] == [True, False, False, False]
    wire.listener.abort_all()
    await settle()
    assert all(exchange.abandoned for exchange in wire.handler.exchanges)
    wire.assert_clean()
