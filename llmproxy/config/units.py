"""Durations, sizes and shares with units, as people write them: `30s`, `250ms`, `5m`, `1h`, `32MiB`, `64k`, `20%`.

Text without a unit is a plain number (seconds, bytes), because a value that came from the environment is always text.
"""

import math
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1000,
    "kib": 1024,
    "m": 1000**2,
    "mb": 1000**2,
    "mib": 1024**2,
    "g": 1000**3,
    "gb": 1000**3,
    "gib": 1024**3,
}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*")
_NUMBER_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
DURATION_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*((us|ms|s|m|h|d)(\s*[0-9]+(\.[0-9]+)?\s*(us|ms|s|m|h|d))*)?\s*$"
_SIZE = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgG]([iI]?[bB])?|[bB])?\s*$"
_SHARE = r"^\s*[0-9]+(\.[0-9]+)?\s*%?\s*$"


def parse_duration(value: Any) -> float:
    """Seconds from `30s`, `250ms`, `1m30s` or a plain number of seconds. ValueError for anything else."""
    seconds = _number(value)
    if seconds is None and isinstance(value, str):
        seconds = _sum_of_parts(value.strip())
    if seconds is None or not math.isfinite(seconds):
        raise ValueError(f"{_shown(value)} is not a duration: write a number with a unit, such as 250ms, 30s, 5m or 1h")
    return seconds


def parse_size(value: Any) -> int:
    """Bytes from `32MiB`, `64k` or a plain number of bytes. ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        match = _NUMBER_UNIT.fullmatch(value)
        if match is not None and match[2].lower() in _SIZE_UNITS and len(match[1]) < 20:
            return int(Decimal(match[1]) * _SIZE_UNITS[match[2].lower()])
    raise ValueError(f"{_shown(value)} is not a size: write a number with a unit, such as 64KiB or 32MiB")


def parse_ratio(value: Any) -> float:
    """A share from `20%` or `0.2`. ValueError for anything else."""
    if isinstance(value, str) and value.strip().endswith("%"):
        percent = _number(value.strip()[:-1])
        share = None if percent is None else percent / 100
    else:
        share = _number(value)
    if share is None or not math.isfinite(share):
        raise ValueError(f"{_shown(value)} is not a share: write 20% or 0.2")
    return share


def format_duration(seconds: float) -> str:
    """`seconds` as a person would write it: `30s`, `250ms`, `10m`. `parse_duration` gives back exactly `seconds`."""
    for text, fits in (
        (f"{seconds / 3600:.0f}h", seconds >= 3600),
        (f"{seconds / 60:.0f}m", seconds >= 600),
        (f"{seconds:.0f}s", True),
        (f"{seconds * 1e3:.0f}ms", True),
    ):
        if fits and parse_duration(text) == seconds:
            return text
    return f"{Decimal(repr(seconds)):f}s"


def format_size(size_bytes: int) -> str:
    """`size_bytes` as a person would write it: `32MiB`, `64KiB`, `1000`."""
    for unit, factor in (("GiB", 1024**3), ("MiB", MIB), ("KiB", KIB)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    return None


def _sum_of_parts(text: str) -> float | None:
    total, position = 0.0, 0
    while position < len(text):
        match = _NUMBER_UNIT.match(text, position)
        if match is None or match[2].lower() not in _DURATION_UNITS:
            return None
        total += float(match[1]) * _DURATION_UNITS[match[2].lower()]
        position = match.end()
    return total if text else None


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (int, float)) or len(str(value)) <= 60 else "this"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0),
    WithJsonSchema(
        {"type": ["string", "number"], "pattern": DURATION_PATTERN, "minimum": 0, "examples": ["30s", "250ms"]}
    ),
]
"""Seconds; zero switches the limit off where the field says so."""
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "integer"], "pattern": _SIZE, "minimum": 0, "examples": ["32MiB", "64KiB"]}),
]
"""Bytes."""
Ratio = Annotated[
    float,
    BeforeValidator(parse_ratio),
    Field(ge=0, le=1),
    WithJsonSchema({"type": ["string", "number"], "pattern": _SHARE, "minimum": 0, "maximum": 1}),
]
"""A share between 0 and 1."""
