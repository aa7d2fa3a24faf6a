"""Demand as it arrives: second by second, with its averages over 10 s and 60 s and its spread.

Every second since the meter began counts, the empty ones too; a second that is not over is in no figure. Sums are kept
up to date as seconds end, so asking costs the same however long the windows are.
"""

from collections import deque
from math import sqrt
from typing import Final

from llmproxy.policy.scaling.base import Demand, Rates

SHORT_S: Final = 10
LONG_S: Final = 60
SPREAD_S: Final = 300
_IDLE_MAX_S: Final = 2 * SPREAD_S


class Track:
    """One dimension: what came in each of the last `SPREAD_S` whole seconds."""

    __slots__ = ("_long", "_seconds", "_short", "_squares", "_sum")

    def __init__(self) -> None:
        self._seconds: deque[float] = deque()
        self._short = self._long = self._sum = self._squares = 0.0

    def end_second(self, amount: float) -> None:
        """A second is over in which `amount` came."""
        seconds = self._seconds
        seconds.append(amount)
        self._short += amount
        self._long += amount
        self._sum += amount
        self._squares += amount * amount
        count = len(seconds)
        if count > SHORT_S:
            self._short -= seconds[count - 1 - SHORT_S]
        if count > LONG_S:
            self._long -= seconds[count - 1 - LONG_S]
        if count > SPREAD_S:
            gone = seconds.popleft()
            self._sum -= gone
            self._squares -= gone * gone

    def average(self, window_s: int) -> float:
        """Per second, over the last `SHORT_S` or `LONG_S`, or since the beginning where that is less."""
        count = min(len(self._seconds), window_s)
        return max((self._short if window_s == SHORT_S else self._long) / count, 0.0) if count else 0.0

    def deviation(self) -> float:
        """Standard deviation of single seconds."""
        count = len(self._seconds)
        if not count:
            return 0.0
        mean = self._sum / count
        return sqrt(max(self._squares / count - mean * mean, 0.0))


class DemandMeter:
    """Counts what arrives, whether or not it will be served. Its figures are unknown before its first second ended,
    and those of tokens while none were counted."""

    __slots__ = ("_amounts", "_began", "_ended", "_tracks")

    def __init__(self, now: float) -> None:
        self._began = now
        """Of the second that is being counted."""
        self._ended = False
        self._amounts = [0.0, 0.0, 0.0]
        self._tracks: list[Track | None] = [Track(), None, None]

    def count(self, now: float, requests: float, prefill_tokens: float = 0.0, decode_tokens: float = 0.0) -> None:
        """So much arrived at `now`."""
        if now - self._began >= 1:
            self._pass_time(now)
        amounts = self._amounts
        amounts[0] += requests
        if prefill_tokens or decode_tokens:
            amounts[1] += prefill_tokens
            amounts[2] += decode_tokens

    def demand(self, now: float) -> Demand:
        """The figures at `now`."""
        self._pass_time(now)
        if not self._ended:
            return Demand()
        tracks = self._tracks
        return Demand(
            last_10s=Rates(*(None if track is None else track.average(SHORT_S) for track in tracks)),
            last_60s=Rates(*(None if track is None else track.average(LONG_S) for track in tracks)),
            deviation_1s=Rates(*(None if track is None else track.deviation() for track in tracks)),
        )

    def _pass_time(self, now: float) -> None:
        ended = int(now - self._began)
        if ended <= 0:
            return
        self._ended = True
        self._began += ended
        tracks, amounts = self._tracks, self._amounts
        # Behind a long sleep of the machine nothing is left of the time before it.
        ended = min(ended, _IDLE_MAX_S)
        for at, amount in enumerate(amounts):
            track = tracks[at]
            if track is None:
                if not amount:
                    continue
                track = tracks[at] = Track()
            track.end_second(amount)
            amounts[at] = 0.0
            for _ in range(ended - 1):
                track.end_second(0.0)
