"""Durations, sizes and ratios with units, as people write them: `30s`, `250ms`, `5m`, `1h`, `32MiB`, `64k`, `20%`."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

KIB = 1024
MIB = 1024**2

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
_NUMBER_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]*)\s*")


def parse_duration(value: Any) -> float:
    """Seconds from `30s`, `250ms`, `1m30s` or a plain number of seconds. ValueError for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        text, total, position = value.strip(), 0.0, 0
        while position < len(text):
            match = _NUMBER_UNIT.match(text, position)
            if match is None or match[2].lower() not in _DURATION_UNITS:
                break
            total += float(match[1]) * _DURATION_UNITS[match[2].lower()]
            position = match.end()
        else:
            if text:
                return total
    raise ValueError(f"{value!r} is not a duration: write a number with a unit, such as 250ms, 30s, 5m or 1h")


def parse_size(value: Any) -> int:
    """Bytes from `32MiB`, `64k` or a plain number of bytes. ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        match = _NUMBER_UNIT.fullmatch(value)
        if match is not None and match[2].lower() in _SIZE_UNITS:
            return int(float(match[1]) * _SIZE_UNITS[match[2].lower()])
    raise ValueError(f"{value!r} is not a size: write a number with a unit, such as 64KiB or 32MiB")


def parse_ratio(value: Any) -> float:
    """A share from `20%` or `0.2`."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is not a share: write 20% or 0.2")


_DURATION_SCHEMA = {"anyOf": [{"type": "string", "examples": ["30s", "250ms"]}, {"type": "number"}]}
_SIZE_SCHEMA = {"anyOf": [{"type": "string", "examples": ["32MiB", "64KiB"]}, {"type": "integer"}]}

Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, json_schema_extra=_DURATION_SCHEMA)]
"""Seconds; zero switches the limit off where the field says so."""
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0, json_schema_extra=_SIZE_SCHEMA)]
"""Bytes."""
Ratio = Annotated[float, BeforeValidator(parse_ratio), Field(ge=0, le=1)]
