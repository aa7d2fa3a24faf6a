"""The highest (or lowest) of what was said within a window."""

from collections import deque


class Highest:
    """The highest value of the last `window_s`. Each call costs O(1) in the mean: what can never be the highest again
    is forgotten at once."""

    __slots__ = ("_kept", "_sign")

    def __init__(self, *, lowest: bool = False) -> None:
        self._sign = -1 if lowest else 1
        self._kept: deque[tuple[float, int]] = deque()

    def add(self, value: int, now: float, window_s: float) -> int:
        """Take note of `value`, and give the highest since `now - window_s`, `value` among them."""
        kept, signed = self._kept, self._sign * value
        while kept and kept[-1][1] <= signed:
            kept.pop()
        kept.append((now, signed))
        while kept[0][0] <= now - window_s and len(kept) > 1:
            kept.popleft()
        return self._sign * kept[0][1]
