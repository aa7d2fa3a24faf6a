"""Pipelined requests: answered in order, one at a time, and never piled up without bound."""

import sys
import tracemalloc

import pytest

from tests.harness.mock_wire import HIGH_WATER, RecordingHandler, Wire, answers, feed, hang_up, settle
from tests.wire.requests_corpus import CHUNKED, GOLDEN, SIMPLE

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTS = b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
STREAMED = -1


def get(number):
    return b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number


async def test_one_after_the_other():
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, b"".join(get(number) for number in range(5)))
    for number in range(5):
        assert [request.target for request in wire.handler.seen] == [b"/%d" % n for n in range(number + 1)]
        wire.handler.exchanges[number].answer(b"%d" % number)
        await settle()
    assert [body for _, _, body in answers(bytes(transport.sent), [b"GET"] * 5)] == [b"%d" % n for n in range(5)]
    await hang_up(transport)
    wire.assert_clean()


async def test_the_last_one_asked_for_is_the_last():
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, get(0) + b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + get(2))
    for exchange in wire.handler.exchanges:
        exchange.answer()
        await settle()
    assert len(wire.handler.exchanges) == 2
    assert transport.eof_written
    await hang_up(transport)
    wire.assert_clean()


async def test_an_answer_that_closes_takes_the_rest_with_it():
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, get(0) + GOLDEN["content-length"] + get(2))
    assert wire.handler.buffered > 0
    wire.handler.exchanges[0].answer(keep_alive=False)
    await settle()
    assert len(wire.handler.seen) == 1
    assert transport.eof_written
    await hang_up(transport)
    wire.assert_clean()


async def test_a_long_pipeline_does_not_recurse():
    wire = Wire()
    transport = wire.connect()
    await feed(transport, SIMPLE * (sys.getrecursionlimit() // 2))
    assert len(wire.handler.seen) == sys.getrecursionlimit() // 2
    await hang_up(transport)
    wire.assert_clean()


async def test_a_long_row_of_upgrades_does_not_recurse():
    wire = Wire()
    transport = wire.connect()
    await feed(transport, GOLDEN["h2c upgrade with a body"] * 2000)
    assert [request.body for request in wire.handler.seen] == [b"hello"] * 2000
    await hang_up(transport)
    wire.assert_clean()


ROWS = {
    "whole requests": [SIMPLE * 100],
    "each read ends inside a head": [SIMPLE[:9], *[SIMPLE[9:] + SIMPLE * 20 + SIMPLE[:9]] * 30],
    "each read ends with an upgrade": [GOLDEN["h2c upgrade"]] * 500,
    "with bodies": [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000] * 5,
    "with heads": [b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 10000)] * 20,
}


@pytest.mark.parametrize("row", ROWS)
async def test_reading_stops_when_enough_is_waiting(row):
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    fed = 0
    for piece in ROWS[row]:
        await feed(transport, piece)
        fed += 1
        if not transport.is_reading():
            break
    assert not transport.is_reading()
    assert fed == 1 or fed < len(ROWS[row])
    waiting = len(transport.protocol._waiting)
    # It goes on only when all of them are answered, or each answer would let another load in.
    for turn in range(waiting):
        assert not transport.is_reading()
        wire.handler.exchanges[turn].answer()
        await settle()
    assert transport.is_reading()
    assert not wire.handler.refused
    await hang_up(transport)
    wire.assert_clean()


async def test_endless_pipelining_with_answers_goes_on():
    """What was counted for heads long read must not add up."""
    wire = Wire(header_bytes=500, request_line_bytes=150)
    transport = wire.connect()
    data = GOLDEN["get"] * 300
    await feed(transport, *(data[i : i + 311] for i in range(0, len(data), 311)))
    assert len(wire.handler.seen) == 300
    await hang_up(transport)
    wire.assert_clean()


async def test_too_many_at_once():
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, SIMPLE * 3000)
    assert [error.status for error in wire.handler.refused] == []
    turn = 0
    while turn < len(wire.handler.exchanges):
        wire.handler.exchanges[turn].answer()
        turn += 1
        await settle()
    assert 1000 <= turn < 1010
    assert [error.status for error in wire.handler.refused] == [429]
    await hang_up(transport)
    wire.assert_clean()


async def test_a_client_that_does_not_read_gets_no_further_answers():
    wire = Wire()
    transport = wire.connect()
    transport.stuck = True
    big = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 10_000)
    for _ in range(30):
        if transport.is_reading():
            await feed(transport, big * 4)
    assert not transport.is_reading()
    assert len(transport.buffer) < HIGH_WATER + 20_000
    asked = len(wire.handler.seen) + len(transport.protocol._waiting)
    transport.drain()
    await settle()
    for _ in range(asked):
        await settle()
    assert len(wire.handler.seen) == asked
    assert transport.is_reading()
    assert len(answers(bytes(transport.sent), [b"GET"] * asked)) == asked
    await hang_up(transport)
    wire.assert_clean()


async def test_a_client_that_does_not_read_is_cut_in_the_end():
    wire = Wire()
    transport = wire.connect()
    transport.stuck = True
    await feed(transport, (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 10_000)) * 9)
    wire.pass_time(76)
    await settle()
    assert transport.aborted
    wire.assert_clean()


@pytest.mark.parametrize("limit", [1 << 20, STREAMED], ids=["held", "streamed"])
async def test_continue(limit):
    wire = Wire(RecordingHandler(later=True, limit=limit))
    transport = wire.connect()
    await feed(transport, EXPECTS)
    assert transport.sent == CONTINUE
    await feed(transport, b"body")
    assert transport.sent == CONTINUE
    wire.handler.exchanges[0].answer()
    await feed(transport, EXPECTS)
    assert transport.sent.count(CONTINUE) == 2
    await feed(transport, b"body")
    assert [request.body for request in wire.handler.seen] == [b"body"] * 2
    await hang_up(transport)
    wire.assert_clean()


@pytest.mark.parametrize("limit", [1 << 20, STREAMED], ids=["held", "streamed"])
@pytest.mark.parametrize("before", [1, 2])
async def test_continue_waits_for_its_turn(limit, before):
    """It must not stand inside another request's answer."""
    wire = Wire(RecordingHandler(later=True, limit=limit))
    transport = wire.connect()
    await feed(transport, SIMPLE * before, EXPECTS)
    for turn in range(before):
        assert CONTINUE not in transport.sent
        wire.handler.exchanges[turn].answer()
        await settle()
    assert transport.sent.endswith(CONTINUE)
    await feed(transport, b"body")
    assert wire.handler.seen[-1].body == b"body"
    assert transport.sent.count(CONTINUE) == 1
    await hang_up(transport)
    wire.assert_clean()


@pytest.mark.parametrize(
    "data",
    [
        EXPECTS.replace(b"HTTP/1.1", b"HTTP/1.0") + b"body",
        EXPECTS.replace(b"Length: 4", b"Length: 0"),
        SIMPLE[:-2] + b"Expect: 100-continue\r\n\r\n",
    ],
)
async def test_no_continue(data):
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, data)
    assert len(wire.handler.seen) == 1
    assert transport.sent == b""
    await hang_up(transport)
    wire.assert_clean()


async def test_no_continue_for_a_body_that_is_too_large():
    wire = Wire(RecordingHandler(limit=3))
    transport = wire.connect()
    await feed(transport, EXPECTS)
    assert CONTINUE not in transport.sent
    assert [error.status for error in wire.handler.refused] == [413]
    await hang_up(transport)
    wire.assert_clean()


async def test_a_streamed_body_waits_unread_for_its_turn():
    wire = Wire(RecordingHandler(later=True, limit=STREAMED))
    transport = wire.connect()
    await feed(transport, SIMPLE + CHUNKED + b"5\r\nhello\r\n")
    assert not transport.is_reading()
    wire.handler.exchanges[0].answer()
    await settle()
    assert transport.is_reading()
    await feed(transport, b"5\r\nworld\r\n0\r\n\r\n")
    assert wire.handler.seen[-1].body == b"helloworld"
    await hang_up(transport)
    wire.assert_clean()


async def test_a_streamed_body_that_nobody_wants_any_more():
    """Answered before it was whole: the rest cannot be told from the next request, so the connection ends."""
    wire = Wire(RecordingHandler(later=True, limit=STREAMED))
    transport = wire.connect()
    await feed(transport, CHUNKED + b"5\r\nhello\r\n")
    exchange = transport.protocol._exchange
    exchange.answer(b"enough")
    assert transport.eof_written
    await feed(transport, b"0\r\n\r\n" + SIMPLE)
    assert len(answers(bytes(transport.sent), [b"POST"])) == 1
    await hang_up(transport)
    wire.assert_clean()


@pytest.mark.parametrize("limit", [8 << 20, STREAMED], ids=["held", "streamed"])
async def test_a_body_in_tiny_chunks_costs_little_more_than_its_bytes(limit):
    wire = Wire(RecordingHandler(later=True, limit=limit))
    transport = wire.connect()
    size = 400_000
    await feed(transport, CHUNKED)
    tracemalloc.start()
    try:
        for _ in range(20):
            await feed(transport, b"2\r\nxy\r\n" * (size // 40))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 2 * size
    await feed(transport, b"0\r\n\r\n")
    assert wire.handler.seen[0].body == b"xy" * (size // 2)
    await hang_up(transport)
    wire.assert_clean()


async def test_behind_a_last_answer_nothing_is_begun_however_late_it_is_taken():
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(2)))
    transport.stuck = True
    wire.handler.exchanges[0].answer(b"x" * 100_000, keep_alive=False)
    await settle()
    transport.drain()
    await settle()
    assert [exchange.request.target for exchange in wire.handler.exchanges] == [b"/0"]
    await hang_up(transport)
    wire.assert_clean()
