"""How many requests at once an engine takes that says nothing of itself: found by trying, from times to first tokens.

For each backend a limit that grows by one for each limit's worth of first tokens that came in good time while the
limit was in use, and shrinks by a tenth, at most once for each round of them, when one came late (additive increase,
multiplicative decrease, as TCP's and Netflix's concurrency limits have it). In good time is: within `tolerance` times
what a prompt of that size has taken here at best; what was best long ago is slowly forgotten.
"""

from dataclasses import dataclass
from typing import Final

from llmproxy.core.backend import Backend

_DECREASE: Final = 0.9
_FORGET: Final = 1.002
"""The best grows by so much with each first token, so that after some hundreds an engine's new pace is believed."""


@dataclass(frozen=True, slots=True)
class AdaptiveOptions:
    """Bounds of the limit, and how late is late."""

    least: int = 4
    first: int = 16
    most: int = 512
    tolerance: float = 2.0
    grace_s: float = 0.2
    """So much more than the best is never late: of short prompts the best is a few milliseconds, and waiting for one
    step of a batch is several times that."""


class _Limit:
    __slots__ = ("best", "hold", "limit")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.best: dict[int, float] = {}
        """Size class of the prompt -> the shortest time to a first token, in seconds."""
        self.hold = 0
        """First tokens to come before the limit may shrink again: those sent under the old one."""


class AdaptiveConcurrency:
    """Limits for all backends of a pool."""

    __slots__ = ("_limits", "options")

    def __init__(self, options: AdaptiveOptions) -> None:
        self.options = options
        self._limits: dict[Backend, _Limit] = {}

    def limit(self, backend: Backend) -> int:
        one = self._limits.get(backend)
        return self.options.first if one is None else int(one.limit)

    def limits(self) -> dict[str, int]:
        """Those that have been learned, by the backend's id."""
        return {backend.id: int(one.limit) for backend, one in self._limits.items()}

    def may_go(self, backend: Backend) -> bool:
        return backend.load.in_flight < self.limit(backend)

    def first_token(self, backend: Backend, size: int, ttft_s: float) -> None:
        """A prompt of `size` bytes was answered by a first token, `ttft_s` after it was sent."""
        options = self.options
        one = self._limits.get(backend)
        if one is None:
            one = self._limits[backend] = _Limit(float(options.first))
        kind = size.bit_length()
        best = one.best.get(kind)
        best = one.best[kind] = ttft_s if best is None else min(best * _FORGET, ttft_s)
        one.hold -= one.hold > 0
        if ttft_s > max(best * options.tolerance, best + options.grace_s):
            if not one.hold:
                one.limit = max(one.limit * _DECREASE, float(options.least))
                one.hold = int(one.limit)
        elif backend.load.in_flight * 2 >= one.limit:
            # Not while it is hardly used: then nothing has been tried.
            one.limit = min(one.limit + 1.0 / one.limit, float(options.most))

    def forget(self, backend: Backend) -> None:
        self._limits.pop(backend, None)
