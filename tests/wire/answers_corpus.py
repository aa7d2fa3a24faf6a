"""Answers of backends: whole ones with what they say, and broken ones."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Whole:
    """`pooled`: its connection can be used again. `until_close`: its end is the connection's."""

    data: bytes
    body: bytes
    pooled: bool = True
    until_close: bool = False
    method: str = "GET"
    status: int = 200
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    informed: tuple[int, ...] = ()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = OK + b"Content-Length: 5\r\n\r\nhello"

WHOLE: dict[str, Whole] = {
    "content-length": Whole(SIZED, b"hello"),
    "content-length, padded": Whole(OK + b"Content-Length: 5  \r\n\r\nhello", b"hello"),
    "empty": Whole(OK + b"Content-Length: 0\r\n\r\n", b""),
    "no reason": Whole(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "odd status": Whole(b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok", b"ok", status=599),
    "chunked": Whole(CHUNKED + b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", b"hello, world"),
    "chunked, empty": Whole(CHUNKED + b"0\r\n\r\n", b""),
    "chunked, line ends inside": Whole(
        CHUNKED + b"8\r\n\r\n0\r\n\r\n\r\r\n2\r\n\r\n\r\n4\r\n5\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r\n\r\r\n5\r\n\r"
    ),
    "chunked with extensions": Whole(CHUNKED + b'5;a=b\r\nhello\r\n1;c="d"\r\n!\r\n0;e\r\n\r\n', b"hello!"),
    "chunked with padded sizes": Whole(CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "chunked with trailers": Whole(
        CHUNKED + b"5\r\nhello\r\n0\r\nX-Time: 3\r\nX-B: \r\n\r\n",
        b"hello",
        trailers=((b"x-time", b"3"), (b"x-b", b"")),
    ),
    "chunked with trailers that end here": Whole(
        CHUNKED + b"5\r\nhello\r\n0\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nX-T: 2\r\n\r\n",
        b"hello",
        pooled=False,
        trailers=((b"x-t", b"2"),),
    ),
    "chunked with a trailer that closes": Whole(
        CHUNKED + b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n", b"hello", pooled=False
    ),
    "connection: close": Whole(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", pooled=False),
    "chunked, connection: close": Whole(
        CHUNKED[:-2] + b"Connection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", pooled=False
    ),
    "until close": Whole(OK + b"\r\nhello", b"hello", pooled=False, until_close=True),
    "until close, empty": Whole(OK + b"\r\n", b"", pooled=False, until_close=True),
    "until close, http/1.0": Whole(b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", pooled=False, until_close=True),
    "http/1.0": Whole(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", pooled=False),
    "http/1.0 kept alive": Whole(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok", pooled=True
    ),
    "head": Whole(OK + b"Content-Length: 5\r\n\r\n", b"", pooled=False, method="HEAD"),
    "head, chunked": Whole(CHUNKED, b"", pooled=False, method="HEAD"),
    "head of something endless": Whole(OK + b"\r\n", b"", pooled=False, method="HEAD"),
    "204": Whole(b"HTTP/1.1 204 No Content\r\n\r\n", b"", status=204),
    "304": Whole(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", b"", status=304),
    "100 first": Whole(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED, b"hello"),
    "102 and 103 first": Whole(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 9\r\n\r\n" + SIZED,
        b"hello",
        informed=(102, 103),
    ),
    "offering an upgrade": Whole(
        OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello", b"hello"
    ),
}

BROKEN: dict[str, bytes] = {
    "garbage": b"\xff\xfe\x00\x01",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 99 Low\r\n\r\n",
    "status 099": b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 None\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "version 1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nx",
    "switching, unasked": b"HTTP/1.1 101 Switching\r\n\r\nx",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF in a head": OK + b"X: 1\nContent-Length: 0\r\n\r\n",
    "bare CR in a head": OK + b"X: 1\rY: 2\r\n\r\n",
    "obs-fold": OK + b"X: 1\r\n 2\r\n\r\n",
    "NUL": OK + b"X: a\0b\r\n\r\n",
    "space before colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and coding": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length +5": OK + b"Content-Length: +5\r\n\r\nhello",
    "length -5": OK + b"Content-Length: -5\r\n\r\nhello",
    "length 1_0": OK + b"Content-Length: 1_0\r\n\r\nhellohello",
    "no length": OK + b"Content-Length:\r\n\r\n",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a chunk of size -1": CHUNKED + b"-1\r\nx",
    "a chunk of size 0x1": CHUNKED + b"0x1\r\nx\r\n",
    "a chunk too long": CHUNKED + b"5\r\nhello!\r\n",
    "a chunk too short": CHUNKED + b"5\r\nhell\r\n0\r\n\r\n",
    "a chunk with a bare LF": CHUNKED + b"5\nhello\r\n",
    "a huge chunk": CHUNKED + b"fffffffffffffffff\r\n",
    "a length in trailers": CHUNKED + b"1\r\nx\r\n0\r\nContent-Length: 1\r\n\r\n",
}

SURPLUS: dict[str, bytes] = {
    "another answer": SIZED,
    "another answer, longer": OK + b"Content-Length: 50\r\n\r\nsmuggled",
    "another chunked answer": CHUNKED + b"8\r\nsmuggled\r\n0\r\n\r\n",
    "bytes": b"smuggled",
    "one byte": b"x",
    "a chunk": b"8\r\nsmuggled\r\n0\r\n\r\n",
    "NUL": b"\0",
}
