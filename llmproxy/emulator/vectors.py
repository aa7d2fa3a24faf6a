"""Numbers in place of a pooling model's: they mean nothing, and depend on every token of the text."""

import zlib
from array import array
from base64 import b64encode


def vector(ids: list[int], dimensions: int) -> list[float]:
    """A direction of length 1."""
    data = array("I", ids).tobytes()
    numbers = [zlib.crc32(data, place) / 2**31 - 1.0 for place in range(dimensions)]
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [number / length for number in numbers]


def encoded(numbers: list[float], encoding: str) -> list[float] | str:
    """As numbers, or (`base64`) as the base64 of little-endian 32-bit floats."""
    return b64encode(array("f", numbers).tobytes()).decode() if encoding == "base64" else numbers


def likeness(left: list[int], right: list[int]) -> float:
    """0 to 1: the share of tokens that two texts have in common."""
    ours, theirs = set(left), set(right)
    return len(ours & theirs) / (len(ours | theirs) or 1)
