"""Lanes: kinds of requests that may take no more than a share of a pool's backends at once.

`{name: long, when: "prompt_tokens > 16k", max_share: 0.3}`: of ten backends at most three compute such prompts at any
time (one at least), so a burst of them leaves the others to everyone else. The first lane whose condition holds is a
request's lane (`llmproxy.core.condition` has the grammar).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llmproxy.core.condition import Condition

NO_LANE: Final = 0
_ALL_OPEN: Final[frozenset[int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    when: Condition
    max_share: float


class Lanes:
    """Lane numbers count from 1; 0 is everybody else's. Counts requests from being sent to their first token."""

    __slots__ = ("_computing", "lanes")

    def __init__(self, lanes: Sequence[Lane] = ()) -> None:
        self.lanes = tuple(lanes)
        self._computing = [0] * (len(self.lanes) + 1)

    def changed(self, lanes: Sequence[Lane]) -> "Lanes":
        """Other lanes after a reload. Requests under way under the old ones are counted by `number` as long as there
        is such a lane; they end soon."""
        new = Lanes(lanes)
        for number, count in enumerate(self._computing[: len(new._computing)]):
            new._computing[number] = count
        return new

    def of(self, prompt_tokens: float, body_bytes: float) -> int:
        """The lane of such a request."""
        for number, lane in enumerate(self.lanes, 1):
            if lane.when.holds(prompt_tokens, body_bytes):
                return number
        return NO_LANE

    def computing(self, number: int) -> int:
        return self._computing[number] if number < len(self._computing) else 0

    def is_open(self, number: int, backends: int) -> bool:
        """Whether one more of this lane may go, with so many backends in the pool."""
        if number == NO_LANE or number > len(self.lanes):  # of a lane that a reload has taken away
            return True
        return self._computing[number] < max(int(self.lanes[number - 1].max_share * backends), 1)

    def closed(self, backends: int) -> frozenset[int]:
        if not self.lanes:
            return _ALL_OPEN
        return frozenset(n for n in range(1, len(self.lanes) + 1) if not self.is_open(n, backends))

    def began(self, number: int) -> None:
        if number < len(self._computing):
            self._computing[number] += 1

    def ended(self, number: int) -> None:
        if number < len(self._computing) and self._computing[number]:
            self._computing[number] -= 1
