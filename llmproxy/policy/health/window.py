"""A sliding count of requests and failures, in slices: constant memory, constant time."""

_SLICES = 10
_NEVER = float("-inf")


class Window:
    """Counts of the last `window_s` seconds; what is up to a tenth older may still be in."""

    __slots__ = ("_at", "_failures", "_requests", "_slice_ends", "_slice_s", "failures", "requests")

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / _SLICES
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        # One more than fit, so that the window is whole even when its newest slice has just begun.
        self._requests = [0] * (_SLICES + 1)
        self._failures = [0] * (_SLICES + 1)
        self._at = 0
        self._slice_ends = _NEVER
        self.requests = 0
        self.failures = 0

    def add(self, now: float, *, failed: bool) -> None:
        """Count one request that ended at `now`."""
        if now >= self._slice_ends:
            self._turn(now)
        self._requests[self._at] += 1
        self.requests += 1
        if failed:
            self._failures[self._at] += 1
            self.failures += 1

    def _turn(self, now: float) -> None:
        if now - self._slice_ends >= self._slice_s * _SLICES:
            self.clear()
            self._slice_ends = now + self._slice_s
            return
        while now >= self._slice_ends:
            self._slice_ends += self._slice_s
            self._at = at = (self._at + 1) % (_SLICES + 1)
            self.requests -= self._requests[at]
            self.failures -= self._failures[at]
            self._requests[at] = self._failures[at] = 0
