"""How much of its time a backend may spend on prompts, so that those who decode there get their tokens in time.

An engine that computes a chunk of a prompt in a step keeps everyone who decodes waiting for it, so the mean time per
token grows with the share of time in which prompts are computed. That share is averaged over some `window_s` seconds;
above the limit the backend gets no more. The limit is found by trying: it goes down with each answer whose time per
token was above the objective and up with each that kept it, such that `missing` of them miss it in the long run
(stochastic approximation of a quantile). No model of the engine is needed.
"""

from math import exp
from typing import Final

from llmproxy.core.backend import Backend

_WINDOW_S: Final = 15.0
_FIRST_LIMIT: Final = 0.6
_STEP: Final = 0.02
_LEAST: Final = 0.05


class _Share:
    __slots__ = ("at", "busy", "share")

    def __init__(self) -> None:
        self.share = 0.0
        self.at = 0.0
        self.busy = False


class PrefillShare:
    """`missing`: the share of answers that may have a time per token above the objective."""

    __slots__ = ("_missing", "_shares", "_window_s", "limit")

    def __init__(self, missing: float = 0.1, window_s: float = _WINDOW_S) -> None:
        self._missing = missing
        self._window_s = window_s
        self._shares: dict[Backend, _Share] = {}
        self.limit = _FIRST_LIMIT

    def of(self, backend: Backend, now: float) -> float:
        """The share of time lately, 0 to 1."""
        one = self._shares.get(backend)
        return 0.0 if one is None else self._pass_time(one, now)

    def may_go(self, backend: Backend, now: float) -> bool:
        return self.of(backend, now) < self.limit

    def computes(self, backend: Backend, busy: bool, now: float) -> None:
        """From now on it computes prompts, or does not."""
        one = self._shares.get(backend)
        if one is None:
            one = self._shares[backend] = _Share()
            one.at = now
        self._pass_time(one, now)
        one.busy = busy

    def learn(self, missed: bool) -> None:
        """An answer ended whose time per token was above the objective, or was not."""
        step = _STEP * (self._missing - 1.0 if missed else self._missing)
        self.limit = min(max(self.limit + step, _LEAST), 1.0)

    def forget(self, backend: Backend) -> None:
        self._shares.pop(backend, None)

    def _pass_time(self, one: _Share, now: float) -> float:
        passed = now - one.at
        if passed > 0:
            kept = exp(-passed / self._window_s)
            one.share = one.share * kept + (1.0 - kept if one.busy else 0.0)
            one.at = now
        return one.share
