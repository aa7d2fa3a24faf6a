"""Chunked bodies, both ways: whatever the chunks and however they are cut up, we and h11 read the same."""

import h11
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.outcome import Outcome
from tests.harness.mock_relay import HOLD, PASS, Backend, Exchange, Told
from tests.harness.mock_wire import RecordingHandler, Wire, feed, hang_up

CHUNKS = st.lists(st.binary(min_size=1, max_size=30) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"5\r\n"]), max_size=6)
EXTENSIONS = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"', b";a=b;c"])
TRAILERS = st.lists(st.tuples(st.sampled_from([b"X-A", b"X-B"]), st.sampled_from([b"", b"1", b"a b"])), max_size=2)
SIZES = st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])


@st.composite
def chunked(draw):
    """A chunked body on the wire, and what it says: body, trailers."""
    chunks, trailers = draw(CHUNKS), draw(TRAILERS)
    wire = b"".join(draw(SIZES) % len(chunk) + draw(EXTENSIONS) + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
    wire += draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS) + b"\r\n"
    wire += b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n"
    return wire, b"".join(chunks), trailers


@st.composite
def pieces_of(draw, data):
    places = sorted(draw(st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def read_by_h11(data, role):
    ours, theirs = (h11.SERVER, h11.Request) if role == "server" else (h11.CLIENT, h11.Response)
    connection = h11.Connection(ours)
    if role == "client":
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    assert isinstance(connection.next_event(), theirs)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return body, list(event.headers)


@given(st.data(), chunked(), st.booleans())
async def test_requests(data, body, streamed):
    framed, said, _ = body
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    wire = Wire(RecordingHandler(limit=-1 if streamed else 1 << 20))
    transport = wire.connect()
    await feed(transport, *data.draw(pieces_of(request)))
    assert [seen.body for seen in wire.handler.seen] == [said] == [read_by_h11(request, "server")[0]]
    await hang_up(transport)
    wire.assert_clean()


@given(st.data(), chunked())
async def test_answers(data, body):
    framed, said, trailers = body
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    verdicts = iter(data.draw(st.lists(st.sampled_from([PASS, PASS, HOLD]), min_size=20, max_size=20)))
    backend = Backend()
    transport = backend.connect()
    exchange = Exchange(transport, Told(lambda body: next(verdicts)))
    await feed(transport, *data.draw(pieces_of(answer)))
    assert exchange.outcome is Outcome.OK
    told, told_trailers = exchange.read_by_client()
    theirs, their_trailers = read_by_h11(answer, "client")
    assert told == said == theirs
    if exchange.told.body and b"Transfer-Encoding" in exchange.client_head:
        assert told_trailers == their_trailers
        assert len(told_trailers) == len(trailers)
    assert backend.idle == 1
    backend.assert_clean()
