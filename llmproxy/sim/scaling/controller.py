"""What scales a fleet: ours, the others', and the one that knows the future."""

from collections.abc import Callable, Sequence
from typing import Protocol

from llmproxy.sim.scaling.fleet import Fleet, Model


class Controller(Protocol):
    """Told of every second, asked every `period_s`."""

    @property
    def period_s(self) -> int: ...

    def second(self, count: int, fleet: Fleet) -> None:
        """A second is over in which so many arrived."""

    def wanted(self, fleet: Fleet) -> int | None:
        """How many replicas to have, ready or starting; None changes nothing."""

    def done(self, change: int, fleet: Fleet) -> None:
        """What became of it."""


Maker = Callable[[Model, Sequence[int]], Controller]
"""From the model and, for the clairvoyant alone, the traffic."""
