"""Tables of what was used lately: bounded, and what has not been used for longest goes first, nearly.

To move an entry to the end at each use costs more than the use itself. So a use only marks the entry, and whoever needs
room passes over those that are marked, once (the second chance of page caches).
"""

from collections import OrderedDict
from typing import TypeVar


class Remembered:
    """An entry. `seen` is set by whoever uses it, the first time excepted, or all that come once would push out those
    that come often. `forgotten` says that the table has another one by now, or none."""

    __slots__ = ("forgotten", "seen")

    def __init__(self) -> None:
        self.seen = False
        self.forgotten = False


K = TypeVar("K")
V = TypeVar("V", bound=Remembered)


def make_room(known: OrderedDict[K, V], most: int) -> None:
    """Forget what is too much for one more to come."""
    while len(known) >= most:
        key, oldest = known.popitem(last=False)
        if oldest.seen:
            oldest.seen = False
            known[key] = oldest
        else:
            oldest.forgotten = True
