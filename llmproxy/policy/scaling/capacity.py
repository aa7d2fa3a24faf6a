"""What one replica can serve, learned from what replicas have been seen to serve.

A rate says what a replica *can* do only while it is given more than that: when requests have waited through the whole
interval, or the replicas' own figure of how full they are (KV cache) says how far from full this rate is. So an
interval teaches
- when saturated (somebody waited all the time, none is in slow start): the served rate per replica. Only the tightest
  dimension is at its limit then, and nobody knows which it is: rates that are exceeded rise to what was served, and
  where none is reached all of them sink by what the closest one lacks. That prompts were short, or in the prefix cache,
  is no reason to believe that a replica could not compute longer ones;
- otherwise, that it is at least the served rate, where everyone was served in time.
Nothing is known before the first of either kind that tells; a configured figure is believed until then and outweighed
by what is learned within a few minutes of saturation. What was learned is kept over a restart (`learned`, `resume`): a
fleet that is larger than its traffic needs never has anybody wait, and could not learn it again.
"""

from math import isfinite
from typing import Final

from llmproxy.policy.scaling.base import Rates

_HALF_LIFE_S: Final = 120.0
"""Of saturated time: how fast new knowledge replaces old."""
_TELLING: Final = 100
"""Requests that must have ended for a rate to tell: of fewer, the luckiest dimension of the luckiest moments would."""
_TELLING_S: Final = 60.0
"""Or so much saturated time."""
_NAMES: Final = ("requests_per_s", "prefill_tokens_per_s", "decode_tokens_per_s")


class Capacity:
    """The learned sustainable rates of one replica."""

    __slots__ = ("_ended", "_known", "_learned", "_span_s", "_sums")

    def __init__(self, configured: Rates | None = None) -> None:
        self._known: dict[str, float] = {}
        self._learned: set[str] = set()
        self._sums: dict[str, float] = {}
        """Of what a replica served in the saturated intervals that were not learned from yet."""
        self._ended = self._span_s = 0.0
        if configured is not None:
            self.believe(configured)

    def believe(self, configured: Rates) -> None:
        """Configured figures, until something else is learned."""
        for name, value in _known_of(configured).items():
            self._known[name] = value
            self._learned.discard(name)

    def resume(self, learned: Rates) -> None:
        """What an earlier process had learned, where nothing is known."""
        for name, value in _known_of(learned).items():
            if self._known.setdefault(name, value) == value:
                self._learned.add(name)

    @property
    def learned(self) -> Rates:
        """Without what is only configured: to be kept, and given to the next process."""
        return Rates(**{name: value for name, value in self._known.items() if name in self._learned})

    @property
    def rates(self) -> Rates:
        """As known by now."""
        return Rates(**self._known)

    def observe(self, served: Rates, replicas: float, saturated: bool, in_time: bool, interval_s: float) -> None:
        """`replicas` (all of them warm; where they differ, what they are worth together) served so much a second for
        `interval_s`. `saturated`: requests waited throughout; `in_time`: those who were served met the objective."""
        if replicas <= 0 or interval_s <= 0:
            return
        rates = {name: rate / replicas for name, rate in _known_of(served).items()}
        if saturated:
            for name, rate in rates.items():
                if name not in self._known:
                    self._known[name] = rate
                    self._learned.add(name)
                self._sums[name] = self._sums.get(name, 0.0) + rate * interval_s
            self._ended += (served.requests_per_s or 0.0) * interval_s
            self._span_s += interval_s
            if self._ended >= _TELLING or self._span_s >= _TELLING_S:
                self._learn()
            return
        for name, rate in rates.items():
            known = self._known.get(name)
            if in_time and known is not None and rate > known:
                self._known[name] = rate
                self._learned.add(name)

    def _learn(self) -> None:
        """From the saturated intervals since the last time."""
        rates = {name: total / self._span_s for name, total in self._sums.items()}
        weight = 1 - 0.5 ** (self._span_s / _HALF_LIFE_S)
        reached = max(rate / self._known[name] for name, rate in rates.items()) if rates else 0.0
        for name, rate in rates.items():
            known = self._known[name]
            self._known[name] = known + weight * (max(rate, known * min(reached, 1.0)) - known)
            self._learned.add(name)
        self._sums.clear()
        self._ended = self._span_s = 0.0


def _known_of(rates: Rates) -> dict[str, float]:
    found = {name: getattr(rates, name) for name in _NAMES}
    return {name: value for name, value in found.items() if value is not None and isfinite(value) and value > 0}
