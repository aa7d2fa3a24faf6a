"""The shape of a measure."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.scale import Scale
from bench.session import Running, Session, Values


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a turn, and how it is shown. `ratios`: also as a ratio to nginx and vllm-router, by round;
    `added`: also as the difference to the bare upstream, by round."""

    key: str
    title: str
    digits: int = 1
    ratios: bool = False
    added: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured of every peer."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    rounds: Callable[[Scale], int]
    take: Callable[[Session, Running], Values]
    direct: bool = False
    """Whether the upstream without a proxy takes turns too."""
    fresh: bool = False
