"""The short cut around the parser takes exactly what the parser would take, and nothing else."""

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.wire.chunks import sole_chunk

_PAYLOAD = st.one_of(st.binary(max_size=40), st.integers(0, 5000).map(lambda size: b"x" * size))


@given(_PAYLOAD)
@example(b"x" * 0xF)
@example(b"x" * 0x10)
@example(b"x" * 0xFF)
@example(b"x" * 0x100)
@example(b"x" * 0xFFF)
@example(b"x" * 0x1000)
def test_a_whole_chunk_is_its_payload_or_left_to_the_parser(payload: bytes) -> None:
    found = sole_chunk(b"%x\r\n%b\r\n" % (len(payload), payload))
    assert found == (payload if 0x10 <= len(payload) <= 0xFFF else b"")


@given(st.binary(max_size=600), st.integers(0, 600))
@example(b"\r\n" * 130, 0xFF)
@example(b"\r\n" * 132, 0x102)
def test_anything_else_is_left_to_the_parser(rest: bytes, size: int) -> None:
    data = b"%x\r\n%b" % (size, rest)
    found = sole_chunk(data)
    assert not found or (found == rest[:-2] and len(found) == size and rest.endswith(b"\r\n"))


@given(st.binary(min_size=16, max_size=300), st.sampled_from([b"0%x", b"%X;a=b", b" %x", b"%x ", b"+%x"]))
def test_unusual_size_lines_are_left_to_the_parser(payload: bytes, line: bytes) -> None:
    assert sole_chunk(line % len(payload) + b"\r\n%b\r\n" % payload) == b""
