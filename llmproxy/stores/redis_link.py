"""One connection to Redis: commands out in order, replies back in order, nothing in between."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

Argument = bytes | str | int | float
OnReply = Callable[[Any], None]
"""Given the reply, an exception among them when that is what Redis answered."""


class RedisLink(asyncio.Protocol):
    """`on_lost` is called once, when the connection is gone or says what is no reply; what is unanswered then stays
    unanswered."""

    def __init__(self, on_lost: Callable[["RedisLink"], None] | None = None) -> None:
        self._on_lost = on_lost
        self._waiting: deque[OnReply] = deque()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._asked: list[asyncio.Future[Any]] = []
        self._cause: BaseException | None = None
        self.lost = False

    def call(self, command: Sequence[Argument], on_reply: OnReply) -> None:
        """Send a command. On a lost connection it is never answered."""
        if self._transport is not None and not self.lost:
            self._waiting.append(on_reply)
            self._transport.write(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]

    async def ask(self, *command: Argument) -> Any:
        """Send a command and wait for its reply. Raises what Redis answers when that is an error, and
        `ConnectionError` when the connection is lost; the caller limits the time."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()

        def answered(value: Any) -> None:
            if not reply.done():
                reply.set_result(value)

        if self.lost:
            raise self._loss()
        self.call(command, answered)
        self._asked.append(reply)
        try:
            found = await reply
        finally:
            self._asked.remove(reply)
        if isinstance(found, Exception):
            raise found
        return found

    def on_lost(self, callback: Callable[["RedisLink"], None]) -> None:
        """Who hears of the loss from now on."""
        self._on_lost = callback

    def abort(self) -> None:
        """Give it up at once; nobody is told."""
        self._on_lost = None
        self._end()

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while not self.lost and (reply := reader.gets()) is not False:
                if not self._waiting:
                    # Said before anything was asked: "max number of clients reached".
                    raise hiredis.ProtocolError("an answer to nothing")
                self._waiting.popleft()(reply)
        except hiredis.ProtocolError:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def _end(self, cause: BaseException | None = None) -> None:
        if self.lost:
            return
        self.lost = True
        self._cause = cause
        self._waiting.clear()
        if self._transport is not None:
            self._transport.abort()
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(self._loss())
        if self._on_lost is not None:
            self._on_lost(self)

    def _loss(self) -> ConnectionError:
        loss = ConnectionError("the connection to Redis is lost")
        loss.__cause__ = self._cause
        return loss
