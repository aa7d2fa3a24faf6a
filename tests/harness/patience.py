"""Streams that a proxy sends heartbeats to: what they wait for, and how they are brought to it."""

import asyncio
from typing import Any

from tests.harness.client import Answer, Client
from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until

EVERY = 5.1
POOL: dict[str, Any] = {"queue": {"heartbeat": "5s"}}
WAITING = b": waiting for the first token\n\n"
ROUTES = [
    (CHAT, chat()),
    ("/v1/completions", {"model": MODEL, "prompt": "hello", "stream": True}),
    ("/v1/responses", {"model": MODEL, "input": "hello", "stream": True}),
    ("/v1/messages", {"model": MODEL, "messages": MESSAGES, "max_tokens": 9, "stream": True}),
]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Gate:
    """A scripted engine that says to each request what it is told to, when it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self._opened = asyncio.Event()
        self._said = b""
        self._reset = False

    async def __call__(self, turn: Turn) -> None:
        self.asked += 1
        await self._opened.wait()
        await turn.say(self._said)
        if self._reset:
            turn.reset()

    def open(self, said: bytes, *, reset: bool = False) -> None:
        """Answer with `said`, then perhaps with a RST."""
        self._said, self._reset = said, reset
        self._opened.set()


def whole(status: str, body: bytes, kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def full(stage: Stage, **options: Any) -> tuple[Proxy, Client]:
    """A proxy whose only place is taken, and who took it."""
    engine = await stage.backend(fail="hang*1")
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, **{"pool": POOL} | options)
    hog = await stage.client(proxy)
    headers = [("Authorization", "Bearer secret")] if "keys" in options else []
    await hog.send("POST", CHAT, chat(stream=False), headers)
    await until(lambda: engine.in_flight == 1, "a busy engine")
    return proxy, hog


async def wait_in_line(
    stage: Stage, proxy: Proxy, body: Any = None, path: str = CHAT, headers: Any = (), **options: Any
) -> Client:
    client = await stage.client(proxy)
    before = proxy.pool().queue.waiting
    await client.send("POST", path, body or chat(), [("X-Request-Id", "waits"), *headers], **options)
    await until(lambda: proxy.pool().queue.waiting > before, "somebody who waits")
    return client


async def begun(stage: Stage, client: Client) -> Answer:
    """Its first comment, and the head in front of it."""
    stage.clock.jump(EVERY)
    answer = await client.head()
    assert answer.status == 200
    assert answer.header("x-llmproxy-backend") is None
    assert (await client.chunk(answer)).startswith(b": ")
    return answer


async def sent(stage: Stage, *gates: Gate, pool: dict[str, Any] | None = None, **options: Any) -> tuple[Proxy, Client]:
    """A stream that an engine has been asked for."""
    backends = [
        {"url": (await stage.scripted(gate)).url, "weight": 10.0 ** -(3 * place)} for place, gate in enumerate(gates)
    ]
    rules = {"policy": "round_robin", "breaker": {"failures": 1000}}
    proxy = await stage.proxy(*backends, pool=rules | POOL | (pool or {}))
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(), [("X-Request-Id", "waits")], **options)
    await until(lambda: gates[0].asked == 1, "the request")
    return proxy, client
