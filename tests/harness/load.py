"""Load that minds every single answer: what was dropped is listed, with the reason."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.harness.client import Answer, Client
from tests.harness.stage import CHAT, chat


class Load:
    """`async with Load(port, clients=20) as load:` keeps that many streams running, one after another on a connection
    each. A client opens a new connection whenever the proxy has said `Connection: close`.

    `answered` counts what was answered whole and well, `dropped` says what was not. With `until_refused` a client ends
    quietly when no connection can be made any more, or when one is closed before anything was sent on it.
    """

    def __init__(
        self, port: int, *, clients: int = 20, body: Callable[[int], Any] | None = None, until_refused: bool = False
    ) -> None:
        self.answered = 0
        self.refused = 0
        self.dropped: list[str] = []
        self.backends: list[str] = []
        """Who answered, in order."""
        self._port = port
        self._clients = clients
        self._body = body or (lambda number: chat(stream=bool(number % 2), max_tokens=8))
        self._until_refused = until_refused
        self._number = 0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.ensure_future(self._run()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let every client finish what it is at."""
        self._stopping = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 30.0)

    @property
    def over(self) -> bool:
        """Whether every client has ended."""
        return all(task.done() for task in self._tasks)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                client = await Client.open(self._port)
            except ConnectionRefusedError:
                self.refused += 1
                if not self._until_refused:
                    self.dropped.append("no connection")
                return
            try:
                while not self._stopping and await self._ask(client):
                    pass
            finally:
                client.leave()

    async def _ask(self, client: Client) -> bool:
        """One request. Whether the connection may be used again."""
        self._number += 1
        number, body = self._number, self._body(self._number)
        try:
            answer = await client.ask("POST", CHAT, body, [("X-Request-Id", f"load-{number}")])
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.dropped.append(f"{number}: {error!r}")
            return False
        failure = flaw(answer, body)
        if failure is not None:
            self.dropped.append(f"{number}: {failure}")
            return False
        self.answered += 1
        self.backends.append(answer.header("x-llmproxy-backend") or "")
        return answer.header("connection") != "close"


def flaw(answer: Answer, body: Any) -> str | None:
    """What is wrong with the answer to a chat; None when nothing is."""
    if answer.status != 200 or answer.cut:
        return f"status {answer.status}, cut: {answer.cut}, {answer.body[-200:]!r}"
    if not body["stream"]:
        said = answer.json["choices"][0]["message"]["content"]
    elif answer.events[-1] != "[DONE]":
        return f"an end without [DONE]: {answer.events[-1]}"
    else:
        said = answer.text
    words = len(said.split())
    return None if words == body["max_tokens"] else f"{words} words, not {body['max_tokens']}"
