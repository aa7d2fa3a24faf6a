"""The clocks of a client connection, driven by hand: each phase has its own, and none outlives its phase."""

import pytest

from llmproxy.wire.deadlines import NEVER
from llmproxy.wire.linger import LINGER_BYTES
from tests.harness.mock_wire import HIGH_WATER, RecordingHandler, Wire, answers, assert_refused, feed, hang_up, settle
from tests.wire.requests_corpus import CHUNKED, SIMPLE

TIMES = {"header_s": 10.0, "body_s": 60.0, "keepalive_s": 75.0, "write_s": 30.0}
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


@pytest.fixture
async def wire():
    return Wire(RecordingHandler(later=True), **TIMES)


async def ended(wire, transport):
    await settle()
    assert transport.lost
    wire.assert_clean()


async def test_a_client_that_says_nothing(wire):
    transport = wire.connect()
    wire.pass_time(9.9)
    assert not transport.is_closing()
    wire.pass_time(0.2)
    assert transport.sent == b""
    await ended(wire, transport)


async def test_a_head_that_drips(wire):
    """Each byte does not buy more time."""
    transport = wire.connect()
    wire.pass_time(5)
    for byte in b"GET /":
        await feed(transport, bytes([byte]))
        wire.pass_time(1.9)
    assert not wire.handler.refused
    wire.pass_time(1)
    assert assert_refused(bytes(transport.sent)) == 408
    await hang_up(transport)
    wire.assert_clean()


async def test_the_clock_of_a_head_starts_with_it(wire):
    transport = wire.connect()
    await feed(transport, SIMPLE)
    wire.handler.exchanges[0].answer()
    await feed(transport, SIMPLE[:-4])
    wire.pass_time(9.9)
    assert not wire.handler.refused
    await feed(transport, SIMPLE[-4:])
    assert len(wire.handler.exchanges) == 2
    wire.pass_time(1000)
    assert not transport.is_closing()
    await hang_up(transport)
    wire.assert_clean()


@pytest.mark.parametrize("data", [HEAD + b"12345", CHUNKED + b"5\r\nhel"])
async def test_a_body_that_stops(wire, data):
    transport = wire.connect()
    await feed(transport, data[:-2])
    wire.pass_time(59)
    await feed(transport, data[-2:])
    wire.pass_time(59)
    assert not wire.handler.refused
    assert wire.handler.buffered > 0
    wire.pass_time(1.1)
    assert assert_refused(bytes(transport.sent)) == 408
    assert wire.handler.buffered == 0
    await hang_up(transport)
    wire.assert_clean()


async def test_idle_between_requests(wire):
    transport = wire.connect()
    await feed(transport, SIMPLE)
    wire.handler.exchanges[0].answer(b"x")
    wire.pass_time(74.9)
    assert not transport.is_closing()
    wire.pass_time(0.2)
    assert len(answers(bytes(transport.sent), [b"GET"])) == 1
    await ended(wire, transport)


async def test_empty_lines_are_not_life(wire):
    transport = wire.connect()
    for _ in range(6):
        await feed(transport, b"\r\n")
        wire.pass_time(1.9)
    await ended(wire, transport)


async def test_while_an_exchange_runs_only_its_own_deadline_counts(wire):
    transport = wire.connect()
    await feed(transport, SIMPLE)
    (exchange,) = wire.handler.exchanges
    assert transport.protocol.deadline == NEVER
    wire.pass_time(10_000)
    assert exchange.expirations == []
    transport.protocol.deadline = wire.clock.now + 5
    wire.pass_time(6)
    assert exchange.expirations == [wire.clock.now]
    await hang_up(transport)
    assert exchange.abandoned
    wire.assert_clean()


@pytest.mark.parametrize("begun", [SIMPLE[:10], HEAD, HEAD + b"123"])
async def test_the_next_request_gets_its_time_when_its_turn_comes(wire, begun):
    transport = wire.connect()
    await feed(transport, SIMPLE + begun)
    wire.pass_time(10_000)
    (exchange,) = wire.handler.exchanges
    assert not wire.handler.refused
    exchange.answer()
    allowed = TIMES["header_s"] if len(begun) == 10 else TIMES["body_s"]
    wire.pass_time(allowed - 0.1)
    assert not wire.handler.refused
    wire.pass_time(0.2)
    await settle()
    _, (status, _, _) = answers(bytes(transport.sent), [b"GET", b"GET"])
    assert status == 408
    await hang_up(transport)
    wire.assert_clean()


async def test_a_head_begun_behind_one_that_was_answered_at_once():
    wire = Wire(RecordingHandler(), **TIMES)
    transport = wire.connect()
    await feed(transport, SIMPLE + SIMPLE[:9])
    wire.pass_time(10.1)
    assert [error.status for error in wire.handler.refused] == [408]
    await hang_up(transport)
    wire.assert_clean()


async def test_a_client_that_does_not_read(wire):
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, SIMPLE)
    (exchange,) = wire.handler.exchanges
    assert exchange.flows == []
    transport.write(b"x")
    assert exchange.flows == [True]
    wire.pass_time(29.9)
    assert not exchange.abandoned
    wire.pass_time(0.2)
    assert exchange.abandoned
    assert transport.aborted
    await ended(wire, transport)


async def test_a_client_that_reads_slowly_is_waited_for(wire):
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, SIMPLE)
    (exchange,) = wire.handler.exchanges
    transport.write(b"x" * (HIGH_WATER + 1))
    for _ in range(8):
        transport.drain(100)
        wire.pass_time(31)
        assert not exchange.abandoned
    wire.pass_time(31)
    assert exchange.abandoned
    await ended(wire, transport)


async def test_a_client_that_catches_up(wire):
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, SIMPLE)
    (exchange,) = wire.handler.exchanges
    transport.write(b"x" * (HIGH_WATER + 1))
    transport.drain()
    assert exchange.flows == [True, False]
    exchange.answer()
    wire.pass_time(40)
    assert not transport.is_closing()
    await hang_up(transport)
    wire.assert_clean()


async def test_after_the_last_answer_the_client_has_a_moment_to_close(wire):
    transport = wire.connect()
    await feed(transport, SIMPLE)
    wire.handler.exchanges[0].answer(b"bye", keep_alive=False)
    assert transport.eof_written
    await feed(transport, b"still talking")
    assert not transport.is_closing()
    wire.pass_time(2.1)
    assert transport.aborted
    await ended(wire, transport)


async def test_a_slow_reader_gets_its_last_answer_whole(wire):
    """The moment begins when the answer is out, not when it is written."""
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, SIMPLE)
    wire.handler.exchanges[0].answer(b"x" * 50_000, keep_alive=False)
    for _ in range(10):
        wire.pass_time(29)
        assert not transport.is_closing()
        transport.drain(5_000)
        await settle()
    transport.drain()
    assert len(answers(bytes(transport.sent), [b"GET"])[0][2]) == 50_000
    wire.pass_time(31)
    await ended(wire, transport)


async def test_a_last_answer_that_nobody_reads(wire):
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, SIMPLE)
    wire.handler.exchanges[0].answer(b"x" * 200_000, keep_alive=False)
    wire.pass_time(3)
    wire.pass_time(31)
    assert transport.aborted
    await ended(wire, transport)


async def test_endless_talk_after_the_end_is_cut(wire):
    transport = wire.connect()
    await feed(transport, b"bad\r\n\r\n")
    piece = b"x" * (LINGER_BYTES // 4)
    await feed(transport, *[piece] * 4)
    assert not transport.aborted
    await feed(transport, b"x")
    assert transport.aborted
    await ended(wire, transport)


async def test_talk_before_the_end_does_not_cost_the_answer(wire):
    """Bytes behind a broken request are thrown away while the good one before it is still being answered."""
    transport = wire.connect()
    await feed(transport, SIMPLE + b"bad\r\n\r\n")
    piece = b"x" * (LINGER_BYTES // 4)
    await feed(transport, *[piece] * 5)
    wire.handler.exchanges[0].answer(b"good")
    await settle()
    await feed(transport, b"x")
    assert [status for status, _, _ in answers(bytes(transport.sent), [b"GET", b"GET"])] == [200, 400]
    await hang_up(transport)
    wire.assert_clean()


async def test_tls_connections_are_closed_with_what_is_written():
    wire = Wire(RecordingHandler(later=True), **TIMES)
    transport = wire.connect(sslcontext=object())
    transport.stuck = True
    await feed(transport, SIMPLE)
    wire.handler.exchanges[0].answer(b"bye", keep_alive=False)
    assert transport.is_closing()
    assert not transport.lost
    wire.pass_time(2.1)
    transport.drain()
    assert answers(bytes(transport.sent), [b"GET"])[0][2] == b"bye"
    await ended(wire, transport)
