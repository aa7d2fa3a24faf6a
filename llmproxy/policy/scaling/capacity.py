"""What one replica can serve, learned from what replicas have been seen to serve.

A rate says what a replica *can* do only while it is given more than that: when requests have waited through the whole
interval, or the replicas' own figure of how full they are (KV cache) says how far from full this rate is. So an
interval teaches
- when saturated (somebody waited all the time, none is in slow start): the served rate per replica;
- otherwise, that it is at least the served rate, where everyone was served in time.
Nothing is known before the first of either kind that tells; a configured figure is believed until then and outweighed
by what is learned within a few minutes of saturation.
"""

from typing import Final

from llmproxy.policy.scaling.base import Rates

_HALF_LIFE_S: Final = 120.0
"""Of saturated time: how fast new knowledge replaces old."""
_NAMES: Final = ("requests_per_s", "prefill_tokens_per_s", "decode_tokens_per_s")


class Capacity:
    """The learned sustainable rates of one replica."""

    __slots__ = ("_known",)

    def __init__(self, configured: Rates | None = None) -> None:
        self._known: dict[str, float] = {}
        for name in _NAMES:
            value = getattr(configured, name) if configured is not None else None
            if value is not None and value > 0:
                self._known[name] = value

    @property
    def rates(self) -> Rates:
        """As known by now."""
        return Rates(**self._known)

    def observe(self, served: Rates, replicas: float, saturated: bool, in_time: bool, interval_s: float) -> None:
        """`replicas` (all of them warm; where they differ, what they are worth together) served so much a second for
        `interval_s`. `saturated`: requests waited throughout; `in_time`: those who were served met the objective."""
        if replicas <= 0 or interval_s <= 0:
            return
        weight = 1 - 0.5 ** (interval_s / _HALF_LIFE_S)
        for name in _NAMES:
            total = getattr(served, name)
            if total is None or total <= 0:
                continue
            rate, known = total / replicas, self._known.get(name)
            if saturated:
                self._known[name] = rate if known is None else known + weight * (rate - known)
            elif in_time and known is not None and rate > known:
                self._known[name] = rate
