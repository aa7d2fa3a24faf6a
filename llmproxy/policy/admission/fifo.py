"""A bounded queue: first come, first served."""

from collections import OrderedDict, deque
from collections.abc import Hashable
from math import ceil
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)

_REMEMBERED = 64


class FifoQueue(Generic[W]):
    """At most `max_waiting` waiters, each for at most `wait_s` seconds."""

    __slots__ = ("_entered", "_max_waiting", "_now", "_served", "_wait_s")

    def __init__(self, max_waiting: int, wait_s: float) -> None:
        # Both ends and the middle in constant time; a plain dict is slow to find its first after many have left.
        self._entered: OrderedDict[W, float] = OrderedDict()
        self._served: deque[float] = deque(maxlen=_REMEMBERED)
        self._now = 0.0
        """The latest time anybody told: near enough for an estimate, and `next` need not be told."""
        self.configure(max_waiting, wait_s)

    def configure(self, max_waiting: int, wait_s: float) -> None:
        """New bounds after a reload. Nobody who waits is sent away for the length; the time counts for them too."""
        self._max_waiting = max_waiting
        self._wait_s = wait_s

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._entered)

    def enter(self, waiter: W, now: float) -> bool:
        """Stand in line, at its end; False when it is full. A waiter that is in it already keeps its place."""
        self._now = now
        if waiter in self._entered:
            return True
        if len(self._entered) >= self._max_waiting:
            return False
        self._entered[waiter] = now
        return True

    def leave(self, waiter: W) -> None:
        """Step out of line, from wherever it stands; nothing happens when it is not in it."""
        self._entered.pop(waiter, None)

    def in_line(self) -> list[W]:
        """Everybody who waits, the first first."""
        return list(self._entered)

    def serve(self, waiter: W) -> bool:
        """Take this one out of line, to be served; False when it is not in it."""
        if self._entered.pop(waiter, None) is None:
            return False
        self._served.append(self._now)
        return True

    def next(self) -> W | None:
        """Take the first out of line, to be served; None when nobody waits."""
        if not self._entered:
            return None
        waiter, _ = self._entered.popitem(last=False)
        self._served.append(self._now)
        return waiter

    def expired(self, now: float) -> list[W]:
        """Take those out of line who have waited their time, the longest wait first."""
        self._now = now
        gone: list[W] = []
        for waiter, entered in self._entered.items():
            if now - entered < self._wait_s:
                break
            gone.append(waiter)
        for waiter in gone:
            del self._entered[waiter]
        return gone

    def retry_after_s(self, now: float) -> int:
        """How long one turned away now had better stay away: until the line has moved on by its length, at the pace
        of the last `wait_s` seconds. Whole seconds, at least 1 and at most the wait itself."""
        self._now = now
        longest = max(1, ceil(self._wait_s))
        served = self._served
        while served and now - served[0] > self._wait_s:
            served.popleft()
        if len(served) < 2:
            return longest
        pace_s = (now - served[0]) / len(served)
        return min(max(1, ceil((len(self._entered) + 1) * pace_s)), longest)
