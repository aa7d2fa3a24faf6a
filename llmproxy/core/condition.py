"""Conditions on a request's size, as configurations write them. They are read by a parser, never evaluated as code.

condition  = comparison { "and" comparison }
comparison = field ( ">" | ">=" | "<" | "<=" | "==" ) number
field      = "prompt_tokens" | "body_bytes"            number = digits with an optional fraction and k or m
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt
from typing import Final

FIELDS: Final = ("prompt_tokens", "body_bytes")
_COMPARISON: Final = re.compile(r"\s*([a-z_]+)\s*(>=|<=|==|>|<)\s*(\d{1,12}(?:\.\d{1,6})?)([km]?)\s*", re.ASCII)
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {">": gt, ">=": ge, "<": lt, "<=": le, "==": eq}
_SUFFIXES: Final = {"": 1.0, "k": 1e3, "m": 1e6}


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparisons that must all hold: field, operator, number."""

    parts: tuple[tuple[str, str, float], ...]

    def holds(self, prompt_tokens: float, body_bytes: float) -> bool:
        values = {"prompt_tokens": prompt_tokens, "body_bytes": body_bytes}
        return all(_OPERATORS[operator](values[field], bound) for field, operator, bound in self.parts)


def parse_condition(text: str) -> Condition:
    """ValueError says what is wrong with it."""
    parts = []
    for comparison in text.split(" and "):
        match = _COMPARISON.fullmatch(comparison)
        if match is None:
            raise ValueError(f"{comparison.strip()!r} is no comparison such as prompt_tokens > 16k")
        field, operator, number, suffix = match.groups()
        if field not in FIELDS:
            raise ValueError(f"there is no {field!r} to compare (known: {', '.join(FIELDS)})")
        parts.append((field, operator, float(number) * _SUFFIXES[suffix]))
    return Condition(tuple(parts))
