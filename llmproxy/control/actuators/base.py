"""The interface of all actuators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Instance:
    """One replica as its actuator knows it."""

    id: str
    """Of letters, digits, `.`, `_`, `-`; no other instance ever gets it."""
    url: str = ""
    """Where it serves; empty while that is unknown."""
    stopping: bool = False
    """It was told to end, and has not yet."""
    age_s: float = 0.0
    """Since it was started."""
    tier: str = ""
    """Which tier of capacity it is of, where there are tiers."""


class ActuatorError(Exception):
    """The call failed, and may be made again."""


class TiersFailed(ActuatorError):
    """Of these tiers of capacity not all that were asked for can be had now; everything else was done."""

    def __init__(self, message: str, tiers: Sequence[str]) -> None:
        super().__init__(message)
        self.tiers = tuple(tiers)


class Actuator(Protocol):
    """Called by one loop, one call at a time. Each call may raise `ActuatorError`."""

    async def start(self) -> None:
        """Find what a process before this one left running."""

    async def stop(self) -> None:
        """The proxy ends."""

    async def replicas(self) -> Sequence[Instance]:
        """Every instance there is, those that are stopping too."""

    async def scale(
        self, count: int, *, leaving: Sequence[str] = (), fence: int = 0, tiers: Mapping[str, int] | None = None
    ) -> None:
        """Stop those in `leaving`, whatever their number, and then have `count` instances that are not stopping: start
        some, or stop the youngest. `tiers`, where there are tiers of capacity: how many of each; they add up to
        `count`."""
