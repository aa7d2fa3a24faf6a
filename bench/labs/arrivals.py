"""Requests that come at a given rate, whether or not earlier ones were answered."""

import asyncio
import random
import time
from collections.abc import Callable

from bench.labs.answer import Answer
from bench.labs.client import Client

_END_S = 60.0


class Arrivals:
    """`await run(rate, seconds)`: requests at `rate(t)` a second, Poisson. Every second one is a stream. Connections
    are kept and used again; there is one for each request under way, and `most` bounds them.

    `answers` by id, `flaws` says what was wrong with those that were not whole.
    """

    def __init__(self, port: int, *, tokens: int, most: int = 1000, seed: int = 0) -> None:
        self.answers: dict[str, Answer] = {}
        self.flaws: dict[str, str] = {}
        self._port = port
        self._tokens = tokens
        self._most = most
        self._rng = random.Random(seed)
        self._idle: list[Client] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    async def run(self, rate: Callable[[float], float], seconds: float) -> None:
        began = due = time.monotonic()
        while (due := due + self._rng.expovariate(rate(due - began))) < began + seconds:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            self._number += 1
            task = asyncio.create_task(self._ask(self._number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def ask(self) -> Answer:
        """One more request, now."""
        self._number += 1
        number = self._number
        await self._ask(number)
        return self.answers[f"r{number}"]

    async def end(self) -> None:
        """Wait for what is under way, and leave."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_S)
        for task in self._tasks:
            task.cancel()
        for client in self._idle:
            client.leave()

    async def _ask(self, number: int) -> None:
        id, stream = f"r{number}", bool(number % 2)
        if len(self._tasks) > self._most:
            self.flaws[id] = f"more than {self._most} requests at once"
            return
        try:
            client = await self._client()
        except OSError as error:
            self.flaws[id] = f"no connection: {error}"
            return
        answer = client.chat(self._tokens, stream=stream, id=id)
        self.answers[id] = answer
        await answer.over.wait()
        flaw = answer.flaw(self._tokens, stream=stream)
        if flaw is not None:
            self.flaws[id] = flaw
        if client.usable:
            self._idle.append(client)

    async def _client(self) -> Client:
        while self._idle:
            client = self._idle.pop()
            if client.usable:
                return client
        return await Client.open(self._port)
