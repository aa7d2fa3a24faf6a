"""A client's connection, as those see it who answer on it."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from llmproxy.core.errors import ProxyError
from llmproxy.wire.deadlines import NEVER
from llmproxy.wire.inbound import InboundRequest


class ClientConnection(asyncio.Protocol):
    """The handler writes answers with `write` and ends each with `finish`; while a request is being answered,
    `deadline` is the handler's to set. `Downstream` is the only kind there is. A class, not a protocol: compiled, what
    it offers is then used without being looked up, once a chunk."""

    __slots__ = ("deadline", "peer_ip", "tls", "transport", "write")

    def __init__(self) -> None:
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.write: Callable[[bytes], Any] = nowhere
        self.peer_ip = ""
        self.tls = False
        self.deadline = NEVER

    @property
    def is_closed(self) -> bool:
        return self.transport.is_closing()

    @property
    def under_way(self) -> object | None:
        """The exchange that runs, as whoever began it made it."""
        raise NotImplementedError

    @property
    def write_paused(self) -> bool:
        """Whether the client has fallen behind; pause whatever feeds it."""
        raise NotImplementedError

    def pause_body(self) -> None:
        """Stop reading: the backend takes a streamed request body too slowly, or the client sends too far ahead."""
        raise NotImplementedError

    def resume_body(self) -> None:
        """Go on reading."""
        raise NotImplementedError

    def finish(self, request: InboundRequest, keep_alive: bool) -> None:
        """The answer to `request` is written: take the next one, wait for it, or close."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the connection: the client sees that the answer is not whole."""
        raise NotImplementedError

    # -- for the listener ------------------------------------------------------------------------------------------

    def close_when_idle(self, now: float, patience_s: float) -> None:
        """Draining: close if nothing has been under way for `patience_s`, as a request may be on its way; else the
        answer says `Connection: close`."""
        raise NotImplementedError

    def give_up(self, error: ProxyError) -> None:
        """What runs ends with `error`; a connection on which nothing runs is closed."""
        raise NotImplementedError

    def abort_exchange(self) -> None:
        """The client is gone or stuck, or has to go: give its exchange up and cut the connection."""
        raise NotImplementedError


def nowhere(data: bytes) -> None:
    """Where an answer goes whose connection is gone."""
