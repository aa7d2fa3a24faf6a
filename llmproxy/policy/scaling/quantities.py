"""Durations and shares as they are written in policies' options: `90s`, `5m`, `85%`.

The configuration has its own reader of the same forms, which a policy, knowing only core, may not use.
"""

import math
import re
from typing import Final

_UNITS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(ms|s|m|h|d)\s*")
_PLAIN: Final = re.compile(r"\s*[0-9]{1,15}(?:\.[0-9]{1,15})?\s*")


def duration_s(value: object) -> float:
    """Seconds from `90s`, `1m30s`, `24h` or a plain number. Raises `ValueError` in words that follow a name."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    if isinstance(value, str):
        if _PLAIN.fullmatch(value):
            return float(value)
        total, at = 0.0, 0
        while match := _PART.match(value, at):
            total += float(match[1]) * _UNITS[match[2]]
            at = match.end()
        if value.strip() and at == len(value):
            return total
    raise ValueError(f"{value!r} must be a duration, such as 30s, 5m or 1h")


def share(value: object) -> float:
    """A share from `85%` or `0.85`. Raises `ValueError` in words that follow a name."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        number = text[:-1] if text.endswith("%") else text
        if _PLAIN.fullmatch(number):
            return float(number) / 100 if text.endswith("%") else float(number)
    raise ValueError(f"{value!r} must be a share, such as 85% or 0.85")
