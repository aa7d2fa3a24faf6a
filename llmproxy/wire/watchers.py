"""Watchers of clients whose connection stands still: nothing is read from them for now, or they have fallen behind.
Each lives only as long as that; the sweep asks it, and it cuts a connection with nobody at its other end."""

import asyncio
import socket
from collections.abc import Callable

from llmproxy.wire.contracts import Hub

_LEFT = frozenset({7, 8})
"""TCP's CLOSE (after a RST) and CLOSE_WAIT (after a FIN), as Linux numbers them."""


class Stuck:
    """Watches a client that has fallen behind, whatever else its connection waits for: it must take something within
    each `write` timeout."""

    __slots__ = ("_cut", "_hub", "_transport", "_unwritten", "deadline")

    def __init__(self, transport: asyncio.Transport, cut: Callable[[], None], hub: Hub) -> None:
        self._transport = transport
        self._cut = cut
        self._hub = hub
        self._unwritten = transport.get_write_buffer_size()
        self.deadline = hub.clock() + hub.settings.write_s

    def expired(self, now: float) -> None:
        unwritten = self._transport.get_write_buffer_size()
        if unwritten < self._unwritten:
            # Slow, but reading.
            self._unwritten = unwritten
            self.deadline = now + self._hub.settings.write_s
        else:
            self._cut()


class Unread:
    """Watches a client from which nothing is read for now: that it leaves shows in its connection's state alone, and
    only Linux tells it. Looked at by every sweep."""

    __slots__ = ("_cut", "_transport", "deadline")

    def __init__(self, transport: asyncio.Transport, cut: Callable[[], None]) -> None:
        self._transport = transport
        self._cut = cut
        self.deadline = 0.0

    def expired(self, now: float) -> None:
        link = self._transport.get_extra_info("socket")
        try:
            state = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] if link is not None else 0
        except (OSError, AttributeError):
            return
        if state in _LEFT:
            self._cut()
