"""Chunks of a chunked body (RFC 9112, 7.1), where they can be told without a parser."""

from typing import Final

_HEX: Final = b"0123456789abcdef"
_CR: Final = 13
_LF: Final = 10


def sole_chunk(data: bytes) -> bytes:
    """The payload, when `data` is exactly one chunk as servers write them: the shortest lower-case size, nothing
    else in its line. Otherwise b"", also for the last chunk."""
    # Digit by digit: compiled, that calls nothing, and this is once a chunk.
    size, start = len(data) - 6, 4
    if size > 0xFF:
        size, start = size - 1, 5
        if not 0xFF < size <= 0xFFF or data[0] != _HEX[size >> 8]:
            return b""
    elif size <= 0xF:
        return b""
    if (
        data[start - 4] == _HEX[size >> 4 & 0xF]
        and data[start - 3] == _HEX[size & 0xF]
        and data[start - 2] == _CR
        and data[start - 1] == _LF
        and data[-2] == _CR
        and data[-1] == _LF
    ):
        return data[start:-2]
    return b""
