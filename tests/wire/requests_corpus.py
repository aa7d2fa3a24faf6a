"""Golden requests: each is valid, may hold several pipelined ones, and is read alike however it is cut up."""

CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
SIMPLE = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"

GOLDEN: dict[str, bytes] = {
    "get": b"GET /health HTTP/1.1\r\nHost: a.example:8080\r\nUser-Agent: x/1\r\nAccept: */*\r\n\r\n",
    "get with a query": b"GET /v1/models?limit=2&after=%20x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "empty and padded values": b"GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Blank:   \r\nX-Pad: \t v w \t\r\n\r\n",
    "latin-1 in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: caf\xe9\r\n\r\n",
    "repeated fields": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nX-A: 3\r\n\r\n",
    "empty lines before": b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "content-length": b'POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{"model":"m"}',
    "content-length, padded": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 \r\n\r\nabc",
    "content-length 0": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "no body at all": b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a body that looks like a request": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
    % (len(SIMPLE), SIMPLE),
    "chunked": CHUNKED + b"5\r\nhello\r\n1\r\n \r\n00A\r\nworld12345\r\n0\r\n\r\n",
    "chunked, empty": CHUNKED + b"0\r\n\r\n",
    "chunked with extensions": CHUNKED + b'5;a=b;c="d e"\r\nhello\r\n0;last\r\n\r\n',
    "chunked with line ends inside": CHUNKED + b"6\r\n\r\n0\r\n\r\r\n2\r\n\r\n\r\n0\r\n\r\n",
    "chunked with trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX-Checksum: 1\r\nX-Other: 2\r\n\r\n",
    "head": b"HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "options *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "delete": b"DELETE /v1/responses/resp_1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "http/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "http/1.0 kept alive": b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "asked to close": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "nominated fields": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n",
    "expect": b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    "expect, chunked": CHUNKED[:-2] + b"Expect: 100-Continue\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "h2c upgrade": b"GET / HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
    "h2c upgrade with a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + UPGRADE + b"\r\nhello",
    "h2c upgrade with a chunked body": CHUNKED[:-2] + UPGRADE + b"\r\n5\r\nhello\r\n0\r\n\r\n",
    "h2c upgrade with an empty body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" + UPGRADE + b"\r\n",
    "h2c upgrade whose body looks like a request": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b"
    % (len(SIMPLE), UPGRADE, SIMPLE),
    "upgrade without connection": b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
    "absolute-form": b"GET http://b.example:81/v1/models?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute-form without a path": b"GET HTTP://b.example HTTP/1.1\r\nHost: a\r\n\r\n",
}

for _name, _first in tuple(GOLDEN.items()):
    if "http/1.0" not in _name and "close" not in _name:
        GOLDEN[f"{_name}, another behind"] = _first + SIMPLE
GOLDEN["three"] = SIMPLE + GOLDEN["chunked with trailers"] + GOLDEN["content-length"]
GOLDEN["three upgrades"] = GOLDEN["h2c upgrade"] + GOLDEN["h2c upgrade with a chunked body"] + GOLDEN["h2c upgrade"]
