"""A silence is no decline. When the requests of a busy pool stop from one moment to the next, something in front of it
has stopped (a gateway, a network, a client's deployment), and what comes back is what was there before, all at once.

Traffic that fades says so; traffic that stops does not. With g0 requests a second and the deviation sigma0 of single
seconds just before, t seconds with next to nothing are no chance once g0 t > 5 sigma0 sqrt(t), and twenty requests were
to be expected. Pools that one replica can serve are left out: whether the last one goes is a question of money. Then
whatever was needed before the silence is kept through it, for at most `longest_s`, and for as long after it as anything
is held.

What an hour of it is worth: who comes back to no replicas waits a cold start and the time to notice, say 150 s. With an
objective of 99.5 % that is the whole error budget of 150 s / 0.5 % = 8 h. A fleet that runs at 85 % instead of 95 % so
as not to overdraw it pays 12 %, one hour in eight: so a fleet kept for an hour costs what the misses would have.
"""

from math import sqrt
from typing import Final

from llmproxy.policy.scaling.base import Signals

_LOOK_S: Final = 10.0
"""What the shorter average looks back on."""
_NEXT_TO_NOTHING: Final = 0.02
_DEVIATIONS: Final = 5.0
_EXPECTED: Final = 20.0


class Silence:
    """Ask at every evaluation."""

    __slots__ = ("_before", "_deviation", "_ended", "_known", "_longest_s", "_since")

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._before = self._deviation = 0.0
        """Requests a second, and their deviation, when there was traffic last."""
        self._since: float | None = None
        """When it became quiet."""
        self._known = False
        """That it is a silence."""
        self._ended: float | None = None

    def window_s(self, signals: Signals, now: float, hold_s: float) -> float:
        """How far back what was needed counts still, where that is `hold_s` otherwise."""
        demand = signals.demand
        f, g = demand.last_10s.requests_per_s, demand.last_60s.requests_per_s
        if f is None or g is None or not self._longest_s:
            return hold_s
        if self._since is None and f > _NEXT_TO_NOTHING * g:
            self._before, self._deviation = g, demand.deviation_1s.requests_per_s or 0.0
        elif self._since is None:
            self._since, self._known, self._ended = now - _LOOK_S, False, None
        elif f > _NEXT_TO_NOTHING * self._before and self._ended is None:
            self._ended = now
        if self._since is None:
            return hold_s
        quiet_s = (now if self._ended is None else self._ended) - self._since
        expected = self._before * quiet_s if self._before > (signals.sustainable.requests_per_s or 0.0) else 0.0
        self._known = self._known or expected > max(_EXPECTED, _DEVIATIONS * self._deviation * sqrt(quiet_s))
        over = self._ended is not None and (not self._known or now - self._ended >= hold_s)
        if over or quiet_s > self._longest_s:
            # What goes on beyond that is no silence of anything: there is no traffic.
            self._since, self._known, self._ended = None, False, None
            self._before = self._deviation = 0.0
            return hold_s
        return hold_s + now - self._since if self._known else hold_s
