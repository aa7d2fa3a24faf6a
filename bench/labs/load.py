"""Load that minds every single answer: what failed is listed, with the reason."""

import asyncio
from types import TracebackType

from bench.labs.answer import Answer
from bench.labs.client import Client

_END_S = 20.0


class Load:
    """`async with Load(port, clients=20) as load:` keeps that many clients asking, each again as soon as it is
    answered; every second request is a stream. A client connects anew whenever the proxy has said that it closes.

    `answers` are the good ones, `failures` says what was wrong with the others. With `until_refused` a client ends
    quietly when no connection can be made any more.
    """

    def __init__(self, port: int, *, clients: int, tokens: int = 8, until_refused: bool = False) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._port = port
        self._clients = clients
        self._tokens = tokens
        self._until_refused = until_refused
        self._number = 0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let every client finish what it is at; when something went wrong, do not wait."""
        self._stopping = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*self._tasks, return_exceptions=kind is not None), _END_S)

    @property
    def over(self) -> bool:
        """Whether every client has ended."""
        return all(task.done() for task in self._tasks)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                client = await Client.open(self._port)
            except OSError as error:
                if not self._until_refused:
                    self.failures.append(f"no connection: {error}")
                return
            async with client:
                while not self._stopping and client.usable:
                    await self._ask(client)

    async def _ask(self, client: Client) -> None:
        self._number += 1
        stream = bool(self._number % 2)
        answer = client.chat(self._tokens, stream=stream, id=f"load-{self._number}")
        await answer.over.wait()
        flaw = answer.flaw(self._tokens, stream=stream)
        if flaw is None:
            self.answers.append(answer)
        else:
            self.failures.append(flaw)
