"""What became of the replicas while a load rose and fell: kept to be judged, and to be told when it came to no end."""

import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any

_CHANGES_TOLD = 15
_DECISIONS_TOLD = 5
_LINES_TOLD = 8


@dataclass
class Course:
    """The replicas over time: when, how many wanted and how many serving; and the legs of the load."""

    rows: list[tuple[float, int, int]] = field(default_factory=list)
    legs: dict[str, tuple[float, float]] = field(default_factory=dict)
    leg: str = "from zero"
    """The one that is played."""
    serve_now: set[str] = field(default_factory=set)
    drained_s: dict[str, float] = field(default_factory=dict)
    """How long each replica was seen draining."""
    view: dict[str, Any] = field(default_factory=dict)
    """The last that the admin API said."""

    def saw(self, view: dict[str, Any], now: float) -> None:
        """The admin API's view of the pool."""
        self.view = view
        self.serve_now = {one["id"] for one in view["replicas"] if one["stage"] == "serving"}
        self.rows.append((now, view["desired"] or 0, len(self.serve_now)))
        self.drained_s |= {one["id"]: one["for_s"] for one in view["replicas"] if one["stage"] == "draining"}

    def turns(self, begin: float, end: float) -> int:
        """How often the number wanted changed its direction."""
        wanted = [desired for at, desired, _ in self.rows if begin <= at < end]
        steps = [after - before for before, after in itertools.pairwise(wanted) if after != before]
        return sum((one > 0) != (other > 0) for one, other in itertools.pairwise(steps))

    def restless(self, most: int) -> list[str]:
        """The legs within which it changed its direction more often than that."""
        found = {name: self.turns(*leg) for name, leg in self.legs.items()}
        return [f"{name}: {turns} times" for name, turns in found.items() if turns > most]

    def serving(self, begin: float, end: float) -> list[int]:
        """How many served, at each look between these times, and at the one before."""
        within = [serving for at, _, serving in self.rows if begin <= at < end]
        before = [serving for at, _, serving in self.rows if at < begin]
        return [*before[-1:], *within]

    def changes(self) -> list[str]:
        """`serving/wanted` wherever either changed, with the second."""
        found, last = [], (-1, -1)
        began = self.rows[0][0] if self.rows else 0.0
        for at, desired, serving in self.rows:
            if (desired, serving) != last:
                last = desired, serving
                found.append(f"{at - began:.0f}s {serving}/{desired}")
        return found

    def told(self, under_way: dict[str, float], decisions: bytes, said: str) -> str:
        """All that helps to see why it did not end. `under_way`: requests, and when they were sent."""
        now = time.monotonic()
        oldest = min(under_way, key=lambda id: under_way[id], default="")
        waited = f", {oldest} for {now - under_way[oldest]:.0f} s" if oldest else ""
        replicas = ", ".join(
            f"{one['id']} {one['stage']} for {one['for_s']:.0f} s with {one['in_flight']} requests"
            for one in self.view.get("replicas", ())
        )
        newest = json.loads(decisions or b"{}").get("decisions", [])[:_DECISIONS_TOLD]
        return "\n".join(
            [
                f"leg: {self.leg}; {len(under_way)} requests under way{waited}",
                f"serving/wanted: {', '.join(self.changes()[-_CHANGES_TOLD:])}",
                f"replicas: {replicas or 'none'}; {len(self.rows)} looks",
                *(f"decided: {one['before']} -> {one['replicas']}: {one['reason']}" for one in newest),
                *(f"proxy: {line}" for line in said.splitlines()[-_LINES_TOLD:]),
            ]
        )
