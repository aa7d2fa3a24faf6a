"""Lingering: our last answer is out, and what the client still sends is read and thrown away for a while. Were the
connection closed at once, unread bytes would make the kernel send a reset, which can destroy an answer on its way."""

import asyncio

LINGER_S = 2.0
LINGER_BYTES = 1 << 26


class Linger:
    """How far a client has come in taking the last answer, and how much it has sent meanwhile."""

    __slots__ = ("_transport", "_unwanted", "_unwritten")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unwanted = 0
        self._unwritten = transport.get_write_buffer_size() + 1

    def discard(self, size: int) -> None:
        """The client has sent `size` more bytes."""
        self._unwanted += size
        if self._unwanted > LINGER_BYTES:
            self._transport.abort()

    def has_moved(self) -> bool:
        """Whether the client has taken some of what waits for it since it was asked about last, but not yet all."""
        unwritten = self._transport.get_write_buffer_size()
        if 0 < unwritten < self._unwritten:
            self._unwritten = unwritten
            return True
        return False
