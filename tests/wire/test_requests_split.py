"""Every golden request, cut at every byte, is read as when it comes whole, and as h11 reads it."""

from dataclasses import astuple

import h11
import pytest

from tests.harness.mock_wire import RecordingHandler, Wire, answers, feed, hang_up, settle
from tests.wire.requests_corpus import GOLDEN

STREAMED, HELD = -1, 1 << 20


async def read(*pieces, limit=HELD, later=False):
    """The requests in `pieces`, and the methods' answers, in order."""
    wire = Wire(RecordingHandler(limit=limit, later=later))
    transport = wire.connect()
    await feed(transport, *pieces)
    answered = 0
    while answered < len(wire.handler.exchanges):
        assert len(wire.handler.exchanges) == answered + 1, "two requests at once on one connection"
        exchange = wire.handler.exchanges[answered]
        exchange.answer(exchange.request.target)
        answered += 1
        await settle()
    assert not wire.handler.refused
    seen = wire.handler.seen
    await hang_up(transport)
    wire.assert_clean()
    told = [body for _, _, body in answers(bytes(transport.sent), [b"GET" for _ in seen])]
    assert told == [request.target for request in seen]
    return seen


def by_h11(data):
    """The requests in `data` as h11 reads them: method, target, headers, body."""
    server = h11.Connection(h11.SERVER)
    # Empty lines before a request are skipped by us (RFC 9112, 2.2), not by h11.
    server.receive_data(data.lstrip(b"\r\n"))
    found = []
    while isinstance(request := server.next_event(), h11.Request):
        body = b""
        while isinstance(event := server.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        found.append((request.method, request.target, sorted(request.headers), body))
        server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        server.send(h11.EndOfMessage())
        if server.our_state is not h11.DONE:
            break
        server.start_next_cycle()
    return found


def target_of(request):
    """What h11 says of the target, whose form we do not keep."""
    named = dict(request[2]).get(b"host", b"")
    scheme, absolute, rest = request[1].partition(b"://")
    if absolute and scheme.lower() == b"http":
        host, slash, path = rest.partition(b"/")
        return slash + path or b"/", host
    return (b"/*" if request[1] == b"*" else request[1]), named


@pytest.mark.parametrize("name", GOLDEN)
async def test_as_h11_reads_it(name):
    ours, theirs = await read(GOLDEN[name]), by_h11(GOLDEN[name])
    assert len(theirs) >= 1
    assert [(r.method, r.target, r.host) for r in ours] == [(r[0], *target_of(r)) for r in theirs]
    assert [sorted((n.lower(), v.strip()) for n, v in r.headers) for r in ours] == [r[2] for r in theirs]
    assert [r.body for r in ours] == [r[3] for r in theirs]


@pytest.mark.parametrize(
    ("later", "limit"), [(False, HELD), (True, HELD), (True, STREAMED)], ids=["at once", "later", "streamed"]
)
@pytest.mark.parametrize("name", GOLDEN)
async def test_cut_at_every_byte(name, later, limit):
    data = GOLDEN[name]
    whole = [astuple(request) for request in await read(data)]
    assert len(whole) >= 1 + name.endswith("another behind")
    for position in range(1, len(data)):
        pieces = data[:position], data[position:]
        assert [astuple(r) for r in await read(*pieces, limit=limit, later=later)] == whole, position
    byte_by_byte = [data[i : i + 1] for i in range(len(data))]
    assert [astuple(r) for r in await read(*byte_by_byte, limit=limit, later=later)] == whole


async def test_trailers_never_become_headers():
    for request in await read(GOLDEN["chunked with trailers"]):
        assert not [name for name, _ in request.headers if name.startswith(b"X-")]


async def test_hop_by_hop_fields_end_here():
    data = (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: X-Hop, close, x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Kept: 3\r\n"
        b"Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers\r\nTrailer: X-T\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
        b"Proxy-Authorization: x\r\nAccept-Encoding: gzip\r\nForwarded: for=x\r\nX-Real-IP: x\r\nContent-Length: 0\r\n"
        b"Accept: text/plain\r\n\r\n"
    )
    (request,) = await read(data)
    assert request.forward == b"X-Kept: 3\r\nAccept: text/plain\r\n"


@pytest.mark.parametrize("data", ["h2c upgrade with a body", "h2c upgrade whose body looks like a request"])
async def test_an_upgrade_does_not_turn_a_body_into_a_request(data):
    (request,) = await read(GOLDEN[data])
    assert request.body == GOLDEN[data].partition(b"\r\n\r\n")[2]
