"""Keys that were verified lately, good and bad ones: looking again is cheaper than verifying again.

Good and bad have room of their own, so that a flood of invented keys pushes no verified one out. Both are bounded, the
oldest goes first, and what is found is never used past its own end.
"""

from collections import OrderedDict
from typing import TypeVar

from llmproxy.auth.refusals import Refused
from llmproxy.core.identity import Identity

GOOD_MAX = 10_000
BAD_MAX = 1_000
V = TypeVar("V")


class Verified:
    """SHA-256 digest -> the holder, or why not. Times are Unix seconds."""

    def __init__(self, good_max: int = GOOD_MAX, bad_max: int = BAD_MAX) -> None:
        self._good_max = good_max
        self._bad_max = bad_max
        self._good: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[float, Refused]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)

    def find(self, digest: bytes, now: float) -> Identity | None:
        """The holder; None when the key is not known here. Raises `Refused` for one that was bad a moment ago."""
        good = self._good.get(digest)
        if good is not None:
            if now < good[0]:
                return good[1]
            del self._good[digest]
            return None
        bad = self._bad.get(digest)
        if bad is not None:
            if now < bad[0]:
                raise bad[1].again()
            del self._bad[digest]
        return None

    def good(self, digest: bytes, identity: Identity, until: float) -> None:
        """Remember a holder until then."""
        _remember(self._good, digest, (until, identity), self._good_max)

    def bad(self, digest: bytes, why: Refused, until: float) -> None:
        """Remember a refusal until then."""
        _remember(self._bad, digest, (until, why.again()), self._bad_max)

    def forget(self, digest: bytes) -> None:
        """What was found of this key counts no more."""
        self._good.pop(digest, None)
        self._bad.pop(digest, None)

    def clear(self) -> None:
        """What verified them has changed."""
        self._good.clear()
        self._bad.clear()


def _remember(into: OrderedDict[bytes, V], digest: bytes, found: V, most: int) -> None:
    into[digest] = found
    into.move_to_end(digest)
    if len(into) > most:
        into.popitem(last=False)
