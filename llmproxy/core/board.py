"""The board: live counts that policies read through an interface.

One process keeps them in plain attributes (`LocalLoad`). With many workers each process will write its
own column of a shared table and read the sum; policies will not notice.
"""

from typing import Protocol


class Load(Protocol):
    """A backend's live counts. Only `Lease` calls `enter` and `leave`."""

    @property
    def in_flight(self) -> int:
        """Requests sent there whose stream has not ended."""

    def enter(self) -> None: ...

    def leave(self) -> None: ...


class LocalLoad:
    """Counts of one process."""

    __slots__ = ("in_flight",)

    def __init__(self) -> None:
        self.in_flight = 0

    def enter(self) -> None:
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
