"""Enums whose members cost no more than any other attribute.

Before Python 3.12 each `Kind.MEMBER` runs a descriptor's Python code (0.12 us, five times an attribute), and each use
as a key hashes the member's name in Python code; a request does some twenty of them.
"""

from enum import Enum
from typing import TypeVar

E = TypeVar("E", bound=Enum)


def plain(kind: type[E]) -> type[E]:
    """A class decorator: members as plain attributes, hashed by identity."""
    for member in kind:
        # Past the metaclass, which lets nobody replace a member, not even by itself.
        type.__setattr__(kind, member.name, member)
    type.__setattr__(kind, "__hash__", object.__hash__)
    return kind
