"""The four verdicts, and what reaches the client when: pass is verbatim, and nothing goes out before the first one
that lets something through."""

import itertools

import pytest

from llmproxy.core.outcome import Outcome
from llmproxy.wire.relay import Framing
from tests.harness.mock_relay import DROP, HOLD, PASS, Backend, Exchange, Told
from tests.harness.mock_wire import HIGH_WATER, feed, hang_up, settle
from tests.wire.answers_corpus import CHUNKED, OK

WORDS = [b"alpha", b"beta\r\n", b"\r\n0\r\n\r\n", b"gamma gamma", b"delta"]


def chunk(*data):
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in data)


LAST = b"0\r\n\r\n"


class Run:
    def __init__(self, reader=None, **options):
        self.backend = Backend()
        self.transport = self.backend.connect()
        self.exchange = Exchange(self.transport, reader, **options)

    async def feed(self, *pieces):
        await feed(self.transport, *pieces)
        return self

    @property
    def client(self):
        return self.exchange.client

    async def end(self):
        await hang_up(self.client)
        self.exchange.wire.assert_clean()
        self.backend.assert_clean()


async def test_pass_is_verbatim():
    """Chunk-aligned reads go through as they are, extensions and padded sizes included."""
    pieces = [chunk(*WORDS[1:3]), b"0005;a=b\r\nhello\r\n", chunk(WORDS[3]), chunk(WORDS[4]) + LAST]
    run = await Run().feed(CHUNKED + chunk(WORDS[0]), *pieces)
    assert run.exchange.raw == chunk(WORDS[0]) + b"".join(pieces)
    assert run.exchange.relay.bytes_out == len(run.client.sent)
    await run.end()


async def test_pass_does_not_wait():
    """What a read brings leaves in the same moment, even when it is a part of a chunk."""
    run = await Run().feed(CHUNKED)
    assert run.client.sent == b""
    for piece, told in ((b"a\r\nhel", b"hel"), (b"lo", b"hello"), (b" wor", b"hello wor"), (b"l", b"hello worl")):
        await run.feed(piece)
        assert run.exchange.told.body == told
        assert run.client.sent.endswith(told[-1:] + b"\r\n")
    await run.feed(b"\r\n" + LAST)
    assert run.exchange.told_client == b"hello worl"
    await run.end()


@pytest.mark.parametrize("sizes", list(itertools.product([1, 3, 7, 50], repeat=2)))
async def test_pass_in_any_rhythm(sizes):
    data = CHUNKED + chunk(*WORDS) + LAST
    pieces, position = [], 0
    for size in itertools.cycle(sizes):
        if position >= len(data):
            break
        pieces.append(data[position : position + size])
        position += size
    run = await Run().feed(*pieces)
    assert run.exchange.told_client == b"".join(WORDS)
    await run.end()


async def test_hold_until_pass():
    verdicts = iter([HOLD, HOLD, PASS, HOLD, PASS])
    run = Run(Told(lambda body: next(verdicts)))
    await run.feed(CHUNKED + chunk(b"a"), chunk(b"b"))
    assert run.client.sent == b""
    assert run.exchange.relay.held == b"ab"
    await run.feed(chunk(b"c"))
    assert run.exchange.raw == chunk(b"abc")
    await run.feed(chunk(b"d"))
    assert run.exchange.raw == chunk(b"abc")
    await run.feed(chunk(b"e"))
    assert run.exchange.raw == chunk(b"abc") + chunk(b"de")
    await run.feed(LAST)
    assert run.exchange.told_client == b"abcde"
    await run.end()


async def test_drop_takes_what_is_held_with_it():
    verdicts = iter([HOLD, DROP, HOLD, PASS, DROP, HOLD, DROP, PASS])
    run = Run(Told(lambda body: next(verdicts)))
    await run.feed(CHUNKED, *(chunk(bytes([letter])) for letter in b"abcdefgh"), LAST)
    assert run.exchange.told_client == b"cdh"
    await run.end()


async def test_replace_stands_for_all_that_is_held():
    verdicts = iter([HOLD, b"X", PASS, HOLD, b"YY", b"", PASS])
    run = Run(Told(lambda body: next(verdicts)))
    await run.feed(CHUNKED, *(chunk(bytes([letter])) for letter in b"abcdefg"), LAST)
    assert run.exchange.told_client == b"XcYYg"
    await run.end()


@pytest.mark.parametrize(
    ("end", "told"), [(PASS, b"ab"), (HOLD, b"ab"), (DROP, b""), (b"in its place", b"in its place"), (b"", b"")]
)
@pytest.mark.parametrize("committed", [False, True])
async def test_the_end_decides_on_what_is_held(end, told, committed):
    verdicts = iter(([PASS] if committed else []) + [HOLD, HOLD])
    run = Run(Told(lambda body: next(verdicts), end))
    first = [chunk(b"1")] if committed else []
    await run.feed(CHUNKED, *first, chunk(b"a"), chunk(b"b"), LAST)
    assert run.exchange.told_client == (b"1" + told if committed else told)
    assert run.exchange.framing is (Framing.CHUNKED if committed else Framing.LENGTH)
    await run.end()


async def test_the_end_in_the_same_read():
    for verdict, told in ((PASS, b"ab"), (HOLD, b"ab"), (DROP, b"a"), (b"X", b"aX")):
        verdicts = iter([PASS, verdict])
        run = await Run(Told(lambda body, verdicts=verdicts: next(verdicts))).feed(CHUNKED, chunk(b"a"))
        await run.feed(chunk(b"b") + LAST)
        assert run.exchange.told_client == told
        await run.end()


async def test_a_replaced_end_is_not_overlooked():
    """The last read is whole and passes, but the reader has something to add."""
    for verdict, told in ((PASS, b"abadded"), (b"X", b"aXadded"), (HOLD, b"aadded"), (DROP, b"aadded")):
        verdicts = iter([PASS, verdict])
        run = Run(Told(lambda body, verdicts=verdicts: next(verdicts), b"added"))
        await run.feed(CHUNKED, chunk(b"a"), chunk(b"b") + LAST)
        assert run.exchange.told_client == told
        await run.end()


@pytest.mark.parametrize(
    ("verdict", "told"), [(PASS, b"aadded"), (b"X", b"Xadded"), (HOLD, b"added"), (DROP, b"added")]
)
async def test_an_answer_in_one_read_with_a_replaced_end(verdict, told):
    run = await Run(Told(verdict, b"added")).feed(CHUNKED + chunk(b"a") + LAST)
    assert run.exchange.told_client == told
    await run.end()


async def test_held_whole_gets_a_length():
    run = await Run(Told(HOLD)).feed(CHUNKED, chunk(*WORDS), LAST)
    assert run.exchange.framing is Framing.LENGTH
    assert run.exchange.raw == b"".join(WORDS)
    await run.end()


async def test_dropped_first_pieces_do_not_begin_the_answer():
    verdicts = iter([DROP, DROP, PASS])
    run = await Run(Told(lambda body: next(verdicts))).feed(CHUNKED, chunk(b"a"), chunk(b"b"))
    assert run.client.sent == b""
    assert run.exchange.outcome is None
    await run.feed(chunk(b"c") + LAST)
    assert run.exchange.told_client == b"c"
    await run.end()


async def test_lost_while_held_nothing_was_sent():
    run = await Run(Told(HOLD)).feed(CHUNKED, chunk(b"a"))
    run.transport.lose()
    assert run.exchange.outcome is Outcome.RESET
    assert run.client.sent == b""


@pytest.mark.parametrize("minor", [0, 1])
async def test_a_last_word_of_our_own(minor):
    run = await Run(minor=minor).feed(CHUNKED, chunk(b"data: 1\n\n"), b"f\r\ndata: un")
    relay = run.exchange.relay
    relay.abort()
    assert run.transport.aborted
    assert relay.say_last(b"data: sorry\n\n")
    run.client.protocol.finish(run.exchange.asked.request, minor == 1)
    assert run.exchange.told_client == b"data: 1\n\ndata: undata: sorry\n\n"
    await run.end()


async def test_no_last_word_where_its_length_is_told():
    run = await Run().feed(OK + b"Content-Length: 10\r\n\r\nhello")
    run.exchange.relay.abort()
    assert not run.exchange.relay.say_last(b"sorry")
    assert not Run().exchange.relay.say_last(b"sorry")


@pytest.mark.parametrize("minor", [0, 1])
async def test_a_client_that_falls_behind_pauses_its_backend(minor):
    run = await Run(minor=minor).feed(CHUNKED, chunk(b"a"))
    run.client.stuck = True
    assert run.transport.is_reading()
    await run.feed(chunk(b"x" * 8000))
    assert not run.transport.is_reading()
    run.client.drain(7999)
    assert not run.transport.is_reading()
    run.client.drain()
    assert run.transport.is_reading()
    await run.feed(chunk(b"z") + LAST)
    assert len(run.exchange.told_client) == 8000 + 2
    assert run.backend.idle == 1
    await run.end()


async def test_a_client_that_is_behind_already():
    """The first piece alone is too much for it."""
    run = Run()
    run.client.stuck = True
    await run.feed(CHUNKED, chunk(b"x" * (HIGH_WATER + 1)))
    assert not run.transport.is_reading()
    run.client.drain()
    assert run.transport.is_reading()
    await run.feed(LAST)
    assert len(run.exchange.told_client) == HIGH_WATER + 1
    await run.end()


async def test_a_client_that_was_behind_before_there_was_a_relay():
    """As when an earlier attempt wrote to it: nobody told this one."""
    run = Run()
    run.exchange.asked.flow = lambda paused: None
    run.client.stuck = True
    run.client.write(b"HTTP/1.1 103 Early Hints\r\nX: %b\r\n\r\n" % (b"x" * HIGH_WATER))
    assert run.transport.is_reading()
    await run.feed(CHUNKED, chunk(b"a"))
    assert not run.transport.is_reading()


async def test_the_end_comes_while_paused():
    """Pooled while paused, the connection would hang its next user."""
    for data in (OK + b"Content-Length: 100000\r\n\r\n", CHUNKED + b"186a0\r\n"):
        run = Run()
        run.client.stuck = True
        await run.feed(data + b"x" * 99_000)
        assert not run.transport.is_reading()
        # Bytes that were on their way when reading was paused.
        await run.feed(b"x" * 1000 + (b"" if b"Length" in data else b"\r\n" + LAST))
        assert run.exchange.outcome is Outcome.OK
        assert run.backend.pool.take() is run.transport.protocol
        assert run.transport.is_reading()
        run.client.drain()
        # The client catching up has nothing to say to a connection that is someone else's by now.
        assert len(run.exchange.told_client) == 100_000


async def test_a_slow_client_has_no_say_over_the_next_exchange():
    run = Run()
    run.client.stuck = True
    await run.feed(CHUNKED, chunk(b"x"), chunk(b"y") + LAST)
    assert run.backend.pool.take() is run.transport.protocol
    following = Exchange(run.transport)
    run.exchange.relay.flow(True)
    run.exchange.relay.abort()
    assert run.transport.is_reading()
    assert not run.transport.is_closing()
    await feed(run.transport, CHUNKED, chunk(b"z") + LAST)
    assert following.told_client == b"z"


@pytest.mark.parametrize("state", ["not all sent", "not all taken"])
async def test_an_answer_before_the_request_is_out(state):
    """The rest of the request would be taken for the next one; and a backend that takes nothing must not keep it."""
    run = Run()
    upstream = run.exchange.upstream
    if state == "not all sent":
        upstream._sent = False
    else:
        run.transport.stuck = True
        run.transport.write(b"x" * (HIGH_WATER + 1))
        assert upstream.write_paused
    await run.feed(OK + b"Content-Length: 2\r\n\r\nno")
    assert run.exchange.told_client == b"no"
    assert run.backend.idle == 0
    assert run.transport.lost
    await run.end()


async def test_bodies_go_out_in_pieces_of_any_size():
    backend = Backend()
    for size in (0, 1, 65536, 65537, 1 << 20):
        transport = backend.connect()
        exchange = Exchange(transport)
        exchange.relay.abort()
        transport = backend.connect()
        exchange.upstream = transport.protocol
        exchange.upstream.send(exchange.relay, b"head ", b"x" * size, bodyless=False)
        assert transport.sent == b"head " + b"x" * size
        exchange.upstream.abort()
    await settle()
    backend.assert_clean()
