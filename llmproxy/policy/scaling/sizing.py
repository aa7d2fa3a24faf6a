"""How many replicas a known peak needs: peak over what one sustains, times the headroom."""

import re
from math import ceil
from typing import Final

_RATE: Final = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*/\s*(s|sec|second|m|min|minute|h|hour)\s*")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SLIVER: Final = 1e-9
"""Keeps 3.0000000001 from being rounded up to 4."""


def parse_rate(value: object) -> float:
    """A second, from `300/min`, `5/s` or `18000/h`. Raises `ValueError` in words that follow a name."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{value!r} must be a rate of more than 0, such as 300/min, 5/s or 18000/h")
    return float(match[1]) / _SECONDS[match[2][0]]


def replicas_for(peak_per_s: float, per_replica_per_s: float, headroom: float) -> int:
    """At least one. `headroom` 0.3 is 30 % more than the peak."""
    return max(ceil(peak_per_s / per_replica_per_s * (1 + headroom) - _SLIVER), 1)
