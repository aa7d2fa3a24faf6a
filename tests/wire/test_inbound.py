"""A request's head and body, apart from the connection they come over."""

import pytest

from llmproxy.core.errors import BadRequest
from llmproxy.wire.fields import is_host, is_sane_request_id, parse_length
from llmproxy.wire.inbound import LOOSE_PARTS, InboundRequest


def head(*fields, target=b"/x", method=b"GET", version="1.1"):
    request = InboundRequest(1.0)
    request.read_head(method, target, version, [(b"Host", b"a"), *fields])
    return request


def test_what_is_read_of_a_head():
    request = head(
        (b"Authorization", b"Bearer x"),
        (b"X-Request-Id", b" id-1 "),
        (b"Via", b"1.1 a"),
        (b"Via", b"1.0 b"),
        (b"X-Forwarded-For", b"1.2.3.4"),
        (b"X-Forwarded-For", b"5.6.7.8"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"h"),
        (b"Content-Type", b"application/json"),
        (b"traceparent", b"00-x"),
        target=b"/a%20b?c=%2F&d",
    )
    assert (request.authorization, request.request_id) == (b"Bearer x", b"id-1")
    assert (request.via, request.forwarded_for) == (b"1.1 a, 1.0 b", b"1.2.3.4, 5.6.7.8")
    assert (request.forwarded_proto, request.forwarded_host) == (b"https", b"h")
    assert (request.raw_path, request.query, request.target) == (b"/a%20b", b"c=%2F&d", b"/a%20b?c=%2F&d")
    assert request.forward == b"Content-Type: application/json\r\ntraceparent: 00-x\r\n"
    assert request.header(b"traceparent") == b"00-x"
    assert request.header(b"none") is None


@pytest.mark.parametrize(
    "name",
    ["X-LLMProxy-Model", "X-LLMProxy-Debug", "X-LLMProxy-Backend", "X-LLMProxy-Error", "Forwarded", "X-Real-IP"],
)
def test_what_clients_say_in_our_name_ends_here(name):
    for spelt in (name, name.upper(), name.lower()):
        assert head((spelt.encode(), b"1")).forward == b""


@pytest.mark.parametrize("nominated", [b"x-a", b"X-A", b" x-a , x-b", b"keep-alive,x-a"])
def test_nominated_fields_end_here(nominated):
    assert head((b"X-A", b"1"), (b"Connection", nominated), (b"X-a", b"2"), (b"X-AB", b"3")).forward == b"X-AB: 3\r\n"


def test_nominating_what_the_proxy_needs_does_not_take_it_away():
    request = head((b"Connection", b"host, authorization, x-forwarded-for"), (b"Authorization", b"x"))
    assert (request.host, request.authorization) == (b"a", b"x")


@pytest.mark.parametrize(
    "host", [b"a", b"a.b-c_d:80", b"[::1]", b"[2001:db8::1]:8080", b"1.2.3.4:5", b"a:", b"xn--e1a"]
)
def test_hosts(host):
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [b"", b":80", b"a b", b"a\r\nX: 1", b"a/b", b"a?b", b"a#b", b"u@a", b"[::1", b"::1", b"a:b", b"\xe9", b"a\n"],
)
def test_not_hosts(host):
    assert not is_host(host)


@pytest.mark.parametrize("value", [b"a", b"req-1_2.3:4/5+6=7@8", b"x" * 128])
def test_request_ids(value):
    assert is_sane_request_id(value)


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a\n", b"a;b", b'"a"', b"\xe9", b"{}", b"a\tb"])
def test_not_request_ids(value):
    assert not is_sane_request_id(value)


@pytest.mark.parametrize("value", [b"", b"+1", b"-1", b"1_0", b" 1", b"1\n", b"0x1", b"1.0", b"\xb2", b"1" * 19])
def test_not_lengths(value):
    with pytest.raises(BadRequest):
        parse_length(value)


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 129, b"\xff"])
def test_a_request_id_that_is_not_sane_is_as_good_as_none(value):
    assert head((b"X-Request-Id", value)).request_id is None


def test_lengths():
    assert [parse_length(value) for value in (b"0", b"007", b"9" * 18)] == [0, 7, 10**18 - 1]


@pytest.mark.parametrize("pieces", [0, 1, 2, LOOSE_PARTS, LOOSE_PARTS + 1, 3 * LOOSE_PARTS + 7, 20_000])
def test_many_pieces_are_joined_on_the_way(pieces):
    request = InboundRequest(0.0)
    body = [b"%d," % number for number in range(pieces)]
    longest = 0
    for piece in body:
        request.parts.append(piece)
        if len(request.parts) > request.loose:
            request.tidy()
        longest = max(longest, len(request.parts))
    assert longest <= LOOSE_PARTS + 2 + pieces // LOOSE_PARTS
    request.finish_body()
    assert request.body == b"".join(body)
    assert request.parts == []
