"""Which header lines carry a client's key."""

import pytest

from llmproxy.pipeline.heads import without_keys


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (b"", b""),
        (b"Accept: */*\r\n", b"Accept: */*\r\n"),
        (b"x-api-key: k\r\nAccept: */*\r\nAPI-Key: k\r\n", b"Accept: */*\r\n"),
        (b"A: b\r\nX-API-KEY:\r\nC: d\r\n", b"A: b\r\nC: d\r\n"),
        (b"X-Not-Api-Key: v\r\nx-api-keys: v\r\n", b"X-Not-Api-Key: v\r\nx-api-keys: v\r\n"),
        (b"X-Says: send api-key: k\r\napi-key: k\r\n", b"X-Says: send api-key: k\r\n"),
    ],
)
def test_they_are_left_out_and_no_others(lines: bytes, left: bytes) -> None:
    assert without_keys(lines) == left
