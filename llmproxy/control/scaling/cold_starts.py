"""What scaling takes, and what it costs requests meanwhile: counts that only grow.

A change lasts from the decision until as many serve as were wanted (up), or until as many are gone as were to go
(down); one that is overtaken by another decision, in either direction, is none. A cold start lasts while a replica that
was asked for does not serve yet; whoever waited for a place or failed in that time is counted as having done so then.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Change:
    target: int
    began: float


@dataclass(slots=True)
class ColdStarts:
    """One pool's. `seconds` and `changes` by direction (`up`, `down`), `requests` by what became of them (`waited`,
    `failed`)."""

    seconds: dict[str, float] = field(default_factory=lambda: {"up": 0.0, "down": 0.0})
    changes: Counter[str] = field(default_factory=lambda: Counter(up=0, down=0))
    last_s: dict[str, float] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=lambda: Counter(waited=0, failed=0))
    _open: dict[str, _Change] = field(default_factory=dict)
    _was_cold: bool = False
    _seen: tuple[int, int] | None = None
    _waiting: int = 0

    def decided(self, before: int, replicas: int, now: float) -> None:
        """So many are to be ready or starting, where there were or came `before`."""
        if replicas == before:
            return
        direction, other = ("up", "down") if replicas > before else ("down", "up")
        self._open.pop(other, None)
        if direction == "up":
            self._was_cold = True
        # Going further the same way is part of the same change.
        begun = self._open.get(direction)
        self._open[direction] = _Change(replicas, now if begun is None else begun.began)

    def saw(self, serving: int, present: int, now: float) -> None:
        """So many serve; so many exist."""
        for direction, change in list(self._open.items()):
            if serving >= change.target if direction == "up" else present <= change.target:
                del self._open[direction]
                took_s = self.last_s[direction] = now - change.began
                self.seconds[direction] += took_s
                self.changes[direction] += 1

    def counted(self, waited: int, failed: int, waiting: int, *, is_cold: bool) -> None:
        """All that have waited and failed so far, and those who wait now. `is_cold`: a replica that was asked for does
        not serve yet."""
        before, self._seen = self._seen, (waited, failed)
        # A start may be over between two counts.
        was_cold, self._was_cold = self._was_cold, is_cold
        if before is None:
            return
        more = max(waited - before[0], 0)
        if is_cold or was_cold:
            self.requests["failed"] += max(failed - before[1], 0)
            # Who waits still, although the replica serves that it waits for, waited in that time too.
            self._waiting = waiting
        else:
            more = min(more, self._waiting)
            self._waiting -= more
        self.requests["waited"] += more
