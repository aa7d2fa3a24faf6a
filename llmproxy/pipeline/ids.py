"""Request ids: 128 random bits in hex, from the system's generator in batches."""

import os

_BATCH = 256


class RequestIds:
    """Unguessable (they become the ids of stored responses), at a fraction of uuid4's cost."""

    __slots__ = ("_hex", "_position")

    def __init__(self) -> None:
        self._hex = b""
        self._position = 0

    def new(self) -> bytes:
        """32 hex digits."""
        position = self._position
        if position >= len(self._hex):
            self._hex = os.urandom(16 * _BATCH).hex().encode()
            position = 0
        self._position = position + 32
        return self._hex[position : position + 32]
