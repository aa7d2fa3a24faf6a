"""`steps`: a table from a signal to a number of replicas.

    - steps: {signal: queue_depth, table: {0: 2, 5: 4, 20: 8, 50: 10}}

From 5 on 4 replicas are wanted, from 20 on 8; below the first row there is no opinion.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.named import amount, check_amount, known_signal, value_of
from llmproxy.policy.scaling.tokens import Unit

Table = tuple[tuple[tuple[float, Unit], int], ...]


def _table(value: object) -> Table:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("must be a mapping from a signal's value to a number of replicas")
    for replicas in value.values():
        if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            raise ValueError(f"{replicas!r} must be a whole number of replicas")
    rows = sorted(((amount(bound), replicas) for bound, replicas in value.items()), key=lambda row: row[0][0])
    if len({bound for (bound, _), _ in rows}) < len(rows):
        raise ValueError("two rows begin at the same value")
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class StepsOptions:
    signal: str = field(metadata={"read": known_signal})
    table: Table = field(metadata={"read": _table})

    def __post_init__(self) -> None:
        for bound, _ in self.table:
            check_amount(self.signal, bound)


class Steps:
    """What the table says."""

    options_type: ClassVar[type] = StepsOptions

    def __init__(self, options: StepsOptions) -> None:
        self._signal = options.signal
        self._bounds = [bound for (bound, _), _ in options.table]
        self._replicas = [replicas for _, replicas in options.table]

    def want(self, signals: Signals, now: float) -> Wanted | None:
        value = value_of(signals, self._signal)
        row = -1 if value is None else bisect_right(self._bounds, value) - 1
        if value is None or row < 0:
            return None
        return Wanted(self._replicas[row], f"{self._signal} is {value:.3g}, from {self._bounds[row]:g} on", "steps")
