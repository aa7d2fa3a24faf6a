"""An answer whose head and first comments were the proxy's own: its body follows in the framing the client was told."""

import pytest

from tests.harness.mock_relay import HOLD, PASS, Backend, Exchange, Framing, Told
from tests.harness.mock_wire import feed, hang_up
from tests.wire.answers_corpus import CHUNKED, OK

BEAT = b": queued\n\n"


class Begun(Exchange):
    """The client has had a head and a comment when the engine's answer comes."""

    put: bytes | None = None

    def commit(self) -> None:
        self.committed = True
        self.framing = Framing.CHUNKED if self.minor else Framing.CLOSE
        length = b"Transfer-Encoding: chunked\r\n" if self.minor else b""
        self.client_head = b"HTTP/1.1 200 \r\n%b\r\n" % length
        beat = b"%x\r\n%b\r\n" % (len(BEAT), BEAT) if self.minor else BEAT
        self.client.protocol.write(self.client_head + beat)
        if self.put is not None:
            self.relay.replace(self.put)
        self.relay.commit(self.client.protocol, b"", self.framing)


def chunk(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNKED + chunk(b"one", b"two") + b"0\r\n\r\n"],
        [CHUNKED + chunk(b"one"), chunk(b"two"), b"0\r\n\r\n"],
        [CHUNKED + b"3\r\non", b"e\r\n3\r\ntwo\r\n0\r\n\r\n"],
        [OK + b"Content-Length: 6\r\n\r\nonetwo"],
        [OK + b"Content-Length: 6\r\n\r\non", b"etwo"],
    ],
)
async def test_the_body_follows(minor: int, pieces: list[bytes]) -> None:
    backend = Backend()
    exchange = Begun(backend.connect(), minor=minor)
    await feed(exchange.transport, *pieces)
    assert exchange.told_client == BEAT + b"onetwo"
    assert exchange.client.eof_written == (minor == 0)
    await hang_up(exchange.client)
    backend.assert_clean()


@pytest.mark.parametrize("minor", [0, 1])
async def test_an_answer_of_nothing_ends_it(minor: int) -> None:
    backend = Backend()
    exchange = Begun(backend.connect(), minor=minor)
    await feed(exchange.transport, OK + b"Content-Length: 0\r\n\r\n")
    assert exchange.told_client == BEAT
    await hang_up(exchange.client)


async def test_what_was_held_can_be_replaced() -> None:
    backend = Backend()
    exchange = Begun(backend.connect(), Told(HOLD, PASS))
    exchange.put = b"data: {}\n\n"
    await feed(exchange.transport, OK + b"Content-Length: 2\r\n\r\n{}")
    assert exchange.told_client == BEAT + b"data: {}\n\n"
    await hang_up(exchange.client)
