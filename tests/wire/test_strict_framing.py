"""What two programs could read differently is refused: a JSON error, the connection closed, nothing passed on."""

import pytest

from llmproxy.core.errors import BadRequest
from tests.harness.mock_wire import RecordingHandler, Wire, answers, assert_refused, feed, hang_up, settle
from tests.wire.broken_corpus import BROKEN
from tests.wire.requests_corpus import CHUNKED, SIMPLE

STREAMED = -1


async def refused(*pieces, statuses=range(400, 600), **settings):
    """Feed a broken request; what must always hold then."""
    wire = Wire(RecordingHandler(limit=settings.pop("limit", 1 << 20), cap=settings.pop("cap", 1 << 30)), **settings)
    transport = wire.connect()
    await feed(transport, *pieces)
    assert wire.handler.seen == []
    assert len(wire.handler.refused) == 1
    assert transport.eof_written
    status = assert_refused(bytes(transport.sent))
    assert status in statuses
    # Whatever comes now is thrown away.
    await feed(transport, SIMPLE)
    assert wire.handler.seen == []
    await hang_up(transport)
    wire.assert_clean()
    return status


@pytest.mark.parametrize("name", BROKEN)
async def test_whole(name):
    data, statuses = BROKEN[name]
    await refused(data, statuses=statuses)


@pytest.mark.parametrize("name", BROKEN)
async def test_with_another_behind_it(name):
    data, statuses = BROKEN[name]
    await refused(data + SIMPLE, statuses=statuses)


@pytest.mark.parametrize("name", BROKEN)
async def test_cut_at_every_byte(name):
    data, statuses = BROKEN[name]
    for position in range(1, len(data)):
        await refused(data[:position], data[position:], statuses=statuses)
    await refused(*(data[i : i + 1] for i in range(len(data))), statuses=statuses)


@pytest.mark.parametrize("name", BROKEN)
async def test_behind_a_good_one(name):
    """The good one is answered first, then comes the error, then the end."""
    data, statuses = BROKEN[name]
    wire = Wire(RecordingHandler(later=True))
    transport = wire.connect()
    await feed(transport, SIMPLE + data)
    assert transport.sent == b""
    (exchange,) = wire.handler.exchanges
    exchange.answer(b"good")
    await settle()
    (good, _, body), (bad, headers, _) = answers(bytes(transport.sent), [b"GET", b"GET"])
    assert (good, body) == (200, b"good")
    assert bad in statuses
    assert headers[b"connection"] == b"close"
    assert transport.eof_written
    await hang_up(transport)
    wire.assert_clean()


async def test_a_broken_streamed_body_is_cut_not_ended():
    """Its exchange runs already, so the backend has a part of it: it must not be told that this was all."""
    for data in (CHUNKED + b"5\r\nhello\r\nxx", CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n"):
        for position in range(len(CHUNKED), len(data)):
            wire = Wire(RecordingHandler(limit=STREAMED, later=True))
            transport = wire.connect()
            await feed(transport, data[:position], data[position:])
            assert wire.handler.seen == []
            assert [error.status for error in wire.handler.failures] == [400]
            wire.assert_clean()


async def test_a_broken_streamed_body_in_the_queue_leaves_the_others_alone():
    wire = Wire(RecordingHandler(limit=STREAMED, later=True))
    transport = wire.connect()
    await feed(transport, SIMPLE + CHUNKED + b"5\r\nhello\r\nxx")
    (exchange,) = wire.handler.exchanges
    assert not exchange.abandoned
    exchange.answer(b"good")
    await settle()
    (good, _, _), (bad, _, _) = answers(bytes(transport.sent), [b"GET", b"GET"])
    assert (good, bad) == (200, 400)
    assert len(wire.handler.exchanges) == 1
    await hang_up(transport)
    wire.assert_clean()


async def test_a_refusal_from_above_comes_before_the_body():
    error = BadRequest("no", code="no", status=404)
    assert await refused(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", limit=error) == 404


SIZES = {
    "target": (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 200), 414),
    "target and more": (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 600), 414),
    "one field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 500), 431),
    "one name": (b"GET / HTTP/1.1\r\nHost: a\r\n%b: 1\r\n\r\n" % (b"x" * 500), 431),
    "fields": (b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"X: 1\r\n" * 120), 431),
    "body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 301\r\n\r\n%b" % (b"x" * 301), 413),
    "chunked body": (CHUNKED + b"96\r\n%b\r\n97\r\n%b\r\n0\r\n\r\n" % (b"x" * 150, b"x" * 151), 413),
    "trailers": (CHUNKED + b"0\r\n%b\r\n" % (b"X: 1\r\n" * 200), 431),
    "one trailer": (CHUNKED + b"0\r\nX: %b\r\n\r\n" % (b"x" * 900), 431),
    "chunk extension": (CHUNKED + b"1;%b\r\nx\r\n0\r\n\r\n" % (b"x" * 900), 431),
}
BOUNDS = {"header_bytes": 500, "request_line_bytes": 150, "limit": 300}


@pytest.mark.parametrize("name", SIZES)
async def test_too_large(name):
    data, status = SIZES[name]
    # What is counted but not kept (trailers, extensions) may be too large by one read.
    sizes = (64, 7, 1) if data.startswith(CHUNKED) and status == 431 else (len(data), 400, 64, 7, 1)
    for size in sizes:
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        # In small pieces the head is found too large before it is known which part of it is.
        await refused(*pieces, statuses=(status, 431) if name == "target and more" else (status,), **BOUNDS)


async def test_exactly_as_large_as_allowed():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n"
    for data in (head + b"x" * 300, CHUNKED + b"12c\r\n%b\r\n0\r\n\r\n" % (b"x" * 300)):
        for size in (len(data), 100, 1):
            wire = Wire(RecordingHandler(limit=300), header_bytes=500, request_line_bytes=150)
            transport = wire.connect()
            await feed(transport, *(data[i : i + size] for i in range(0, len(data), size)))
            assert [request.body for request in wire.handler.seen] == [b"x" * 300]
            await hang_up(transport)
            wire.assert_clean()


async def test_too_many_fields():
    data = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % b"".join(b"X%d:\r\n" % i for i in range(600))
    assert await refused(data) == 431
    assert await refused(*(data[i : i + 50] for i in range(0, len(data), 50))) == 431


async def test_too_many_bodies_held():
    data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n" + b"x" * 200
    assert await refused(data[:-50], data[-50:], cap=199) == 503
