"""Chunks of a chunked body (RFC 9112, 7.1), where they can be told without a parser."""


def sole_chunk(data: bytes) -> bytes:
    """The payload, when `data` is exactly one chunk as servers write them: the shortest lower-case size, nothing
    else in its line. Otherwise b"", also for the last chunk."""
    size, start = len(data) - 6, 4
    if size > 0xFF:
        size, start = size - 1, 5
        if not 0xFF < size <= 0xFFF:
            return b""
    if size > 0xF and data[-1] == 10 and data[-2] == 13 and data.startswith(b"%x\r\n" % size):
        return data[start:-2]
    return b""
