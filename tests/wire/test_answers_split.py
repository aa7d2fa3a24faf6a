"""Answers of backends, cut at every byte: the client reads the same, and only clean connections are kept."""

import pytest

from llmproxy.core.outcome import Outcome
from llmproxy.wire.relay import Framing
from tests.harness.mock_relay import Backend, Exchange, Told
from tests.harness.mock_wire import feed, hang_up, settle
from tests.wire.answers_corpus import BROKEN, CHUNKED, SIZED, SURPLUS, WHOLE

FULL = [name for name, answer in WHOLE.items() if not answer.until_close]


async def relayed(answer, *pieces, reader=None, minor=1):
    """The answer in `pieces`, as a client gets it."""
    backend = Backend()
    transport = backend.connect()
    exchange = Exchange(transport, reader, method=answer.method, minor=minor)
    await feed(transport, *pieces)
    if answer.until_close:
        await hang_up(transport)
    assert exchange.outcome is Outcome.OK
    assert exchange.upstream.status == answer.status
    assert [status for status, _ in exchange.informed] == list(answer.informed)
    assert backend.idle == answer.pooled
    backend.assert_clean()
    await hang_up(exchange.client)
    exchange.wire.assert_clean()
    return exchange


def cuts(data):
    """The data whole, cut in two everywhere, and byte by byte."""
    yield (data,)
    for position in range(1, len(data)):
        yield data[:position], data[position:]
    yield tuple(data[i : i + 1] for i in range(len(data)))


@pytest.mark.parametrize("name", WHOLE)
async def test_pass(name):
    answer = WHOLE[name]
    for pieces in cuts(answer.data):
        exchange = await relayed(answer, *pieces)
        body, trailers = exchange.read_by_client()
        assert body == answer.body
        if exchange.framing is Framing.CHUNKED:
            assert sorted(trailers) == sorted(answer.trailers)
        assert exchange.told.body == answer.body


@pytest.mark.parametrize("name", WHOLE)
async def test_to_http_1_0(name):
    answer = WHOLE[name]
    for pieces in cuts(answer.data):
        exchange = await relayed(answer, *pieces, minor=0)
        assert exchange.told_client == answer.body
        assert exchange.framing is not Framing.CHUNKED


@pytest.mark.parametrize("name", FULL)
async def test_lost_before_the_end(name):
    """Reset (or closed) at every byte. What ends with the connection cannot be told from whole."""
    answer = WHOLE[name]
    for position in range(len(answer.data)):
        for error in (None, ConnectionResetError()):
            backend = Backend()
            transport = backend.connect()
            exchange = Exchange(transport, method=answer.method)
            await feed(transport, answer.data[:position])
            assert exchange.outcome is None
            transport.lose(error)
            assert exchange.outcome is Outcome.RESET
            assert backend.idle == 0
            backend.assert_clean()


@pytest.mark.parametrize("name", [name for name in WHOLE if WHOLE[name].until_close])
async def test_reset_before_the_end(name):
    answer = WHOLE[name]
    for position in range(len(answer.data) + 1):
        backend = Backend()
        transport = backend.connect()
        exchange = Exchange(transport)
        await feed(transport, answer.data[:position])
        transport.lose(ConnectionResetError())
        assert exchange.outcome is Outcome.RESET
        backend.assert_clean()


@pytest.mark.parametrize("name", BROKEN)
async def test_broken(name):
    for pieces in cuts(BROKEN[name]):
        backend = Backend()
        transport = backend.connect()
        exchange = Exchange(transport)
        await feed(transport, *pieces)
        assert exchange.outcome is Outcome.BAD_RESPONSE, pieces
        assert transport.aborted
        await settle()
        assert backend.idle == 0
        backend.assert_clean()


@pytest.mark.parametrize("surplus", SURPLUS)
@pytest.mark.parametrize("name", FULL)
async def test_surplus(name, surplus):
    """Bytes behind the answer reach nobody, and no one uses their connection again."""
    answer = WHOLE[name]
    whole = answer.data + SURPLUS[surplus]
    for position in range(1, len(whole)):
        backend = Backend()
        transport = backend.connect()
        exchange = Exchange(transport, method=answer.method)
        await feed(transport, whole[:position], whole[position:])
        assert exchange.outcome is Outcome.OK
        assert exchange.told_client == answer.body
        assert exchange.told.body == answer.body
        assert backend.idle == 0
        assert transport.is_closing()
        backend.assert_clean()


@pytest.mark.parametrize("ends", [b"\r\n", b"\r\n\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("name", FULL)
async def test_stray_line_ends(name, ends):
    """The parser skips them, so they may pass unnoticed; but not on to the client."""
    answer = WHOLE[name]
    for pieces in cuts(answer.data + ends):
        backend = Backend()
        transport = backend.connect()
        exchange = Exchange(transport, method=answer.method)
        await feed(transport, *pieces)
        assert exchange.outcome is Outcome.OK
        assert exchange.told_client == answer.body
        backend.assert_clean()


@pytest.mark.parametrize("data", [SIZED, b"x", b"\r\n", CHUNKED])
async def test_unasked(data):
    """An idle connection on which the backend speaks dies, whatever it says."""
    backend = Backend()
    transport = backend.connect()
    Exchange(transport)
    await feed(transport, SIZED)
    assert backend.idle == 1
    await feed(transport, data)
    assert transport.aborted
    assert backend.pool.take() is None
    backend.assert_clean()


async def test_unasked_and_taken_in_the_same_moment():
    backend = Backend()
    transport = backend.connect()
    Exchange(transport)
    await feed(transport, SIZED)
    transport.protocol.data_received(SIZED)
    assert backend.pool.take() is None


async def test_one_after_the_other():
    """Nothing of an exchange is left for the next one on its connection."""
    backend = Backend()
    transport = backend.connect()
    for name in (*FULL, *reversed(FULL)):
        answer = WHOLE[name]
        if not answer.pooled:
            continue
        exchange = Exchange(transport, Told(), method=answer.method)
        await feed(transport, answer.data)
        assert exchange.told_client == answer.body
        assert backend.pool.take() is transport.protocol
    assert backend.idle == 0


async def test_an_endless_head():
    backend = Backend()
    for piece in (b"X: %b\r\n" % (b"x" * 60_000), b"x" * 60_000, b"HTTP/1.1 102 \r\n\r\n" * 3000):
        transport = backend.connect()
        exchange = Exchange(transport)
        start = b"" if piece.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nX: "
        await feed(transport, start, *[piece] * 7)
        assert exchange.outcome is Outcome.BAD_RESPONSE
    backend.assert_clean()


@pytest.mark.parametrize("start", [b"0\r\nX: ", b"5;x="])
async def test_endless_trailers_and_extensions(start):
    backend = Backend()
    transport = backend.connect()
    exchange = Exchange(transport)
    await feed(transport, CHUNKED + b"1\r\nx\r\n", start, *[b"x" * 60_000] * 7)
    assert exchange.outcome is Outcome.BAD_RESPONSE
    backend.assert_clean()
