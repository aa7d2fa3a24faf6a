"""When a first token is due, and until when it makes sense to wait for a place.

A request is worth starting while now + what its prompt is expected to take is before its deadline. How far the
expectation can be trusted is learned: for prompts of each size (powers of two of expected seconds) a factor, which goes
up with each first token that came too late and down with each in time, such that `missing` of them are late in the
long run. Under overload that matters more than anything: what is started and comes too late has cost others their
place for nothing.
"""

from dataclasses import dataclass
from math import frexp, inf
from typing import Final

_STEP: Final = 0.05
_LEAST: Final = 0.5
_MOST: Final = 5.0


@dataclass(frozen=True, slots=True)
class Slo:
    """The first token within the larger of `ttft_s` and `ttft_scaled` times what the prompt takes alone; each token
    after it within `tpot_s` in the mean. Infinite: no objective."""

    ttft_s: float = inf
    ttft_scaled: float = 0.0
    tpot_s: float = inf

    def deadline(self, arrived: float, cold_s: float, timeout_s: float | None = None) -> float:
        """Of a request whose prompt takes `cold_s` alone with nothing cached, and whose client says how long it
        waits."""
        within = self.ttft_s if self.ttft_s == inf else max(self.ttft_s, self.ttft_scaled * cold_s)
        return arrived + (within if timeout_s is None else min(within, timeout_s))


class Margin:
    """`missing`: the share of first tokens that may come too late."""

    __slots__ = ("_factors", "_missing")

    def __init__(self, missing: float = 0.05) -> None:
        self._missing = missing
        self._factors: dict[int, float] = {}

    def latest_start(self, deadline: float, prefill_s: float) -> float:
        """Started later, a prompt that is expected to take `prefill_s` will not be answered in time."""
        return deadline - prefill_s * self._factors.get(_size(prefill_s), 1.0)

    def learn(self, prefill_s: float, late: bool) -> None:
        """A prompt expected to take so long was answered by its first token."""
        size = _size(prefill_s)
        step = _STEP * (1.0 - self._missing if late else -self._missing)
        self._factors[size] = min(max(self._factors.get(size, 1.0) + step, _LEAST), _MOST)


def _size(seconds: float) -> int:
    return frexp(max(seconds, 0.01))[1]


def parse_timeout(text: str | None) -> float | None:
    """The value of `X-Request-Timeout`: seconds, as `30`, `1.5`, `30s` or `1500ms`. None where it says nothing
    useful."""
    if not text or len(text) > 16:
        return None
    text = text.strip().lower()
    factor = 1.0
    if text.endswith("ms"):
        text, factor = text[:-2], 1e-3
    elif text.endswith("s"):
        text = text[:-1]
    if not text.replace(".", "", 1).isdigit() or not text.isascii():
        return None
    return float(text) * factor
