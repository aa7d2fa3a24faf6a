"""A need for a fraction of a replica, as replicas."""

from math import ceil
from typing import Final

_MOST: Final = 10**6
"""Nobody has more; whatever asks for it is a broken measurement."""
_SLIVER: Final = 1e-9
"""Keeps 3.0000000001 from being rounded up to 4."""


def rounded_up(need: float) -> int:
    """`need` rounded up. Infinity is a great many, and what is not a number is none."""
    return ceil(min(need, _MOST) - _SLIVER) if need > 0 else 0
