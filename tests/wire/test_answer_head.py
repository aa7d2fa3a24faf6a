"""The head of an engine's answer: what travels on, byte for byte, and what ends here."""

import pytest

from llmproxy.wire.answer_head import AnswerHead


def lines(*fields):
    return AnswerHead([(name.encode(), value.encode()) for name, value in fields]).lines


def test_what_is_kept_is_kept_as_it_is():
    kept = [
        ("X-A", "1"),
        ("x-a", " 2 "),
        ("Set-Cookie", "a=b"),
        ("Set-Cookie", "c=d"),
        ("ETag", '"x"'),
        ("Trailer", "X"),
    ]
    assert lines(*kept) == "".join(f"{name}: {value}\r\n" for name, value in kept).encode()


@pytest.mark.parametrize(
    "name",
    ["Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "TE", "Upgrade", "Transfer-Encoding",
     "X-Request-Id", "X-LLMProxy-Backend", "X-LLMProxy-Error"],
)  # fmt: skip
def test_what_ends_here(name):
    for spelt in (name, name.lower(), name.upper()):
        assert lines(("A", "1"), (spelt, "close"), ("B", "2")) == b"A: 1\r\nB: 2\r\n"


def test_lengths_are_written_anew():
    head = AnswerHead([(b"Content-Length", b"5"), (b"A", b"1")])
    assert (head.content_length, head.chunked, head.lines) == (5, False, b"A: 1\r\n")
    head = AnswerHead([(b"transfer-encoding", b"Chunked")])
    assert (head.content_length, head.chunked, head.is_odd, head.lines) == (None, True, False, b"")


@pytest.mark.parametrize("value", [b"gzip", b"gzip, chunked", b"identity", b"chunked, chunked", b""])
def test_odd_codings_are_seen(value):
    assert AnswerHead([(b"Transfer-Encoding", value)]).is_odd
    assert AnswerHead([(b"Transfer-Encoding", value), (b"Transfer-Encoding", b"chunked")]).is_odd


NOMINATED = [("X-Hop", "1"), ("X-Other", "2"), ("x-hop", "3"), ("X-Kept", "4")]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("value", ["X-Hop, x-other", "close,x-hop ,  X-OTHER", "keep-alive, x-other,x-hop"])
def test_nominated_fields_end_here_wherever_they_stand(place, value):
    fields = list(NOMINATED)
    fields.insert(place, ("Connection", value))
    assert lines(*fields) == b"X-Kept: 4\r\n"


def test_nominated_in_two_fields():
    assert lines(("Connection", "x-hop"), *NOMINATED, ("Connection", "x-other")) == b"X-Kept: 4\r\n"


def test_nothing_is_read_twice_with_nominated_fields():
    head = AnswerHead(
        [(b"Via", b"1.1 a"), (b"Connection", b"x-hop"), (b"Content-Length", b"7"), (b"Content-Type", b"A/B")]
    )
    assert head.lines == b"Via: 1.1 a, 1.1 llmproxy\r\nContent-Type: A/B\r\n"
    assert (head.content_length, head.content_type, head.via) == (7, b"a/b", True)


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"5", 5.0), (b" 12 ", 12.0), (b"Wed, 21 Oct 2026 07:28:00 GMT", 0.0), (b"", 0.0),
                           (b"-1", 0.0), (b"1" * 30, 0.0), ("٣".encode(), 0.0)],
)  # fmt: skip
def test_retry_after(value, seconds):
    head = AnswerHead([(b"Retry-After", value)])
    assert head.retry_after_s == seconds
    assert head.lines == b"Retry-After: %b\r\n" % value
    assert AnswerHead([]).retry_after_s is None
