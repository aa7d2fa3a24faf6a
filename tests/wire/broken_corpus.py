"""Requests that must be refused, each with the statuses that may be given for it. None of them holds a whole request
that may be passed on."""

from tests.wire.requests_corpus import CHUNKED, SIMPLE, UPGRADE

POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /x HTTP/1.1\r\n"


def _with_length(value: bytes) -> bytes:
    return POST + b"Content-Length:" + value + b"\r\n\r\nhello"


def _with_coding(value: bytes) -> bytes:
    return POST + b"Transfer-Encoding:" + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def _with_field(line: bytes) -> bytes:
    return GET + b"Host: a\r\n" + line + b"\r\n\r\n"


BAD = frozenset({400})
BROKEN: dict[str, tuple[bytes, frozenset[int]]] = {}


def _add(group: str, statuses: frozenset[int], requests: dict[str, bytes]) -> None:
    for name, data in requests.items():
        BROKEN[f"{group}: {name}"] = (data, statuses)


_add(
    "two lengths",
    BAD,
    {
        "CL then TE": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "TE then CL": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "CL 0 and TE": POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "the same CL twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "two CL": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "CL twice, spelt apart": POST + b"Content-Length: 5\r\ncontent-LENGTH: 5\r\n\r\nhello",
    },
)
_add(
    "Content-Length",
    BAD,
    {
        repr(value): _with_length(value)
        for value in (
            b" +5", b" -5", b" 1_0", b" 0x5", b" 5, 5", b" 5,5", b" 5;", b" 5.0", b" 1e1", b" five", b"", b" ",
            b" 5 5", b" \x0b5", b" 5\x0b", b" \xb2", b" 99999999999999999999999999", b" 18446744073709551616",
        )
    },
)  # fmt: skip
_add("Content-Length", frozenset({400, 413}), {"huge": _with_length(b" 1844674407370955161")})
_add(
    "Transfer-Encoding",
    BAD,
    {
        repr(value): _with_coding(value)
        for value in (
            b" gzip", b" gzip, chunked", b" chunked, gzip", b" chunked, chunked", b" xchunked", b" chunkedx",
            b" chunked;q=1", b' "chunked"', b" identity", b" identity, chunked", b"", b" ", b" ,chunked", b" chunked,",
            b" \x0bchunked", b" chunked\x0b", b" chunked\x00", b" chu\r\n nked", b"\r\n chunked",
        )
    }
    | {
        "twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "gzip, then chunked": POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunked, then identity": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "with an upgrade": POST + UPGRADE + b"Transfer-Encoding: gzip\r\n\r\n" + SIMPLE,
    },
)  # fmt: skip
_add(
    "spelling",
    BAD,
    {
        "Content_Length": POST + b"Content_Length: 5\r\n\r\nhello",
        "content_length beside CL": POST + b"Content-Length: 5\r\ncontent_length: 0\r\n\r\nhello",
        "Transfer_Encoding": POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        "space before colon": POST + b"Content-Length : 5\r\n\r\nhello",
        "tab before colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        "space in front": GET + b" Host: a\r\n\r\n",
        "no colon": _with_field(b"Chunked"),
        "no name": _with_field(b": x"),
        "quote in a name": _with_field(b'X"Y: 1'),
        "brackets in a name": _with_field(b"X[Y]: 1"),
        "non-ASCII name": _with_field(b"X\xe9: 1"),
        "NUL in a name": _with_field(b"X\0: 1"),
        "NUL in a value": _with_field(b"X: a\0b"),
        "CTL in a value": _with_field(b"X: a\x01b"),
        "DEL in a value": _with_field(b"X: a\x7fb"),
        "obs-fold": _with_field(b"X: a\r\n b"),
        "obs-fold with a tab": _with_field(b"X: a\r\n\tb"),
        "obs-fold of nothing": _with_field(b"X:\r\n b"),
    },
)
_add(
    "line ends",
    BAD,
    {
        "bare LF after the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        "bare LF after a field": GET + b"Host: a\nX: 1\r\n\r\n",
        "bare LF at the end": GET + b"Host: a\r\n\n",
        "bare LFs only": b"GET / HTTP/1.1\nHost: a\n\n",
        "bare CR after a field": GET + b"Host: a\rX: 1\r\n\r\n",
        "bare CR in a value": _with_field(b"X: a\rContent-Length: 5"),
        "bare CR at the end": GET + b"Host: a\r\n\rX: 1\r\n\r\n",
        "two CRs": GET + b"Host: a\r\r\n\r\n",
    },
)
_add(
    "chunks",
    BAD,
    {
        repr(rest): CHUNKED + rest
        for rest in (
            b"-5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"1_0\r\nhello",
            b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n",
            b"g\r\nhello", b"5g\r\nhello", b"\n5\r\nhello\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n", b"5\r\rhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nhello", b"10000000000000000\r\nhello", b"5\r\nhello\r\n0\n\r\n",
            b"5\r\nhello\r\n0\r\n\n", b"5\r\nhello\r\n0\r\n\rX", b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"5;a\0b\r\nhello\r\n0\r\n\r\n", b'5;a="\n"\r\nhello\r\n0\r\n\r\n',
            b"5 ;a\r\nhello\r\n0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n", b"5,\r\nhello\r\n0\r\n\r\n",
        )
    },
)  # fmt: skip
_add(
    "trailers",
    BAD,
    {
        "Content-Length": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\nhello",
        "Transfer-Encoding": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "space before colon": CHUNKED + b"0\r\nX : 1\r\n\r\n",
        "obs-fold": CHUNKED + b"0\r\nX: 1\r\n 2\r\n\r\n",
        "bare LF": CHUNKED + b"0\r\nX: 1\n\r\n",
        "NUL": CHUNKED + b"0\r\nX: \0\r\n\r\n",
    },
)
_add(
    "Host",
    BAD,
    {
        "missing": GET + b"X: 1\r\n\r\n",
        "twice": GET + b"Host: a\r\nHost: a\r\n\r\n",
        "twice in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        **{repr(host): GET + b"Host: " + host + b"\r\n\r\n"
           for host in (b"a b", b"a/b", b"u@a", b"a,b:1:2", b"a:b", b"a:123456", b"[::1", b"::1", b"a\xe9",
                        b"a\\b", b"<a>")},
    },
)  # fmt: skip
_add(
    "target",
    BAD,
    {
        repr(target): b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        for target in (
            b"x", b"?x", b"*", b"/a#b", b"/\x80", b"/\x01", b"/\x7f", b"/\0", b"ftp://a/", b"http:///x", b"http://u@a/",
            b"http://a:b/", b"http://a/#x", b"http:/x", b"a:80", b"/\xc3\xa9",
        )
    }
    | {"CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + SIMPLE},
)  # fmt: skip
_add(
    "request line",
    BAD,
    {
        "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
        "unknown method": b"FETCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        "tabs": b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "space behind": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "lower-case version": b"GET / http/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.10": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "HTTP/11": b"GET / HTTP/11\r\nHost: a\r\n\r\n",
        "HTTP/+1.1": b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n",
        "HTTP/3.0": b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "garbage": b"\xff\xfe\x00garbage\r\n\r\n",
        "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    },
)
_add(
    "version",
    frozenset({505}),
    {
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "HTTP/0.9": b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        "HTTP/0.9, as it was": b"GET /\r\n\r\n",
    },
)
_add(
    "fields",
    BAD,
    {
        "two Authorization": _with_field(b"Authorization: a\r\nAuthorization: b"),
        "two Content-Type": _with_field(b"Content-Type: application/json\r\nContent-Type: multipart/form-data"),
    },
)
_add("fields", frozenset({417}), {"unknown expectation": _with_field(b"Expect: 200-ok")})
