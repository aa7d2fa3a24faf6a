"""A client leaves at the first await of its request's story, then at the second, and so on to the last: each time
everything is given back at once, and the next request finds the proxy as it was."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llmproxy.emulator import Emulator
from llmproxy.pipeline.exchange import Phase
from tests.harness.client import Client
from tests.harness.proxy import Proxy
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

ID = "cancelled"


class Leaver:
    """Looks, between any two turns of the event loop, at what the request with `ID` waits for, and cuts its client's
    connection at its `leave_at`th await."""

    def __init__(self, proxy: Proxy, leave_at: int | None) -> None:
        self.phases: list[Phase] = []
        """What each await was for."""
        self._proxy = proxy
        self._leave_at = leave_at
        self._seen: object = None
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._look)

    def stop(self) -> None:
        self._handle.cancel()

    @property
    def left(self) -> bool:
        return len(self.phases) == self._leave_at

    def _look(self) -> None:
        self._handle = self._loop.call_soon(self._look)
        for connection in self._proxy.app.listener.connections:
            exchange = connection._exchange
            if getattr(exchange, "id", b"") != ID.encode() or exchange.steps is None:  # type: ignore[union-attr]
                continue
            waiting = exchange.steps._waiting  # type: ignore[union-attr]
            if waiting is None or waiting is self._seen:
                continue
            self._seen = waiting
            self.phases.append(exchange.phase)  # type: ignore[union-attr]
            if self.left:
                connection.abort_exchange()
                # Not in a moment: now.
                assert exchange.steps is None or exchange.steps.ended  # type: ignore[union-attr]
                return


class Scene:
    """Three backends and a proxy that asks `b1` first, then `b2`, then `b3`."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.hogs: list[Client] = []
        self.task: asyncio.Future[None] | None = None

    async def open(self, **options: object) -> None:
        self.engines: list[Emulator] = await self.stage.backends(3, itl_s=0.002)
        entries = [
            {"url": engine.url, "weight": 10.0 ** -(3 * place), **options} for place, engine in enumerate(self.engines)
        ]
        pool = {"policy": "round_robin", "retry": {"after_crash": 3}, "breaker": {"failures": 1000}}
        self.proxy = await self.stage.proxy(*entries, pool=pool)

    async def fill(self) -> None:
        """Take every place there is."""
        for engine in self.engines:
            engine.set_fault("hang*1")
        for number in range(3):
            client = await self.stage.client(self.proxy)
            await client.send("POST", CHAT, chat())
            await until(lambda n=number: self.in_flight == n + 1, "a place taken")
            self.hogs.append(client)

    @property
    def in_flight(self) -> int:
        return sum(backend.load.in_flight for backend in self.proxy.pool().backends)


async def lost_twice(scene: Scene) -> None:
    """b1 refuses, b2 dies in its prefill, b3 answers."""
    scene.engines[0].set_fault("refuse")
    scene.engines[1].set_fault("die_after=0")


async def all_well(scene: Scene) -> None:
    """Nothing goes wrong."""


async def kept_too_long(scene: Scene) -> None:
    """The kept connection to b1 is reset by the next request; a new one is made."""
    assert (await scene.stage.ask(scene.proxy, chat(stream=False))).header("x-emulator") == "b1"
    scene.engines[0].set_fault("reset*1")


async def waiting(scene: Scene) -> None:
    """Every place is taken; one is free as soon as somebody waits for it."""
    await scene.fill()

    async def make_room() -> None:
        await until(lambda: scene.proxy.pool().queue.waiting, "somebody who waits")
        scene.hogs[0].leave()

    scene.task = asyncio.ensure_future(make_room())


async def failed_twice(scene: Scene) -> None:
    """Failures that cost budget: 500, an abort as the first event, then an answer."""
    scene.engines[0].set_fault("status=500")
    scene.engines[1].set_fault("abort_after=0")


CHATS = chat(max_tokens=5)
WHOLE = chat(stream=False, max_tokens=5)
CONNECT, ANSWER, RELAY = Phase.CONNECTING, Phase.ANSWER, Phase.RELAYING
Story = tuple[Callable[[Scene], Awaitable[None]], object, dict[str, object], list[Phase]]
STORIES: dict[str, Story] = {
    "a stream": (all_well, CHATS, {}, [CONNECT, ANSWER, RELAY]),
    "a whole answer": (all_well, WHOLE, {}, [CONNECT, ANSWER]),
    "lost twice": (lost_twice, CHATS, {}, [CONNECT, CONNECT, ANSWER, CONNECT, ANSWER, RELAY]),
    "failed twice": (failed_twice, CHATS, {}, [CONNECT, ANSWER, CONNECT, ANSWER, CONNECT, ANSWER, RELAY]),
    "kept too long": (kept_too_long, CHATS, {}, [ANSWER, CONNECT, ANSWER, RELAY]),
    "the queue": (waiting, CHATS, {"max_concurrency": 1}, [Phase.QUEUED, CONNECT, ANSWER, RELAY]),
    "an upload": (all_well, b"x" * 300_000, {}, [CONNECT, Phase.UPLOADING]),
}


async def tell(stage: Stage, story: str, leave_at: int | None) -> tuple[Scene, Leaver, Client]:
    """Play a story until the client has left, or has its answer."""
    prepare, body, options, _ = STORIES[story]
    scene = Scene(stage)
    await scene.open(**options)
    await prepare(scene)
    client = await stage.client(scene.proxy)
    leaver = Leaver(scene.proxy, leave_at)
    headers = [("X-Request-Id", ID)]
    if isinstance(body, bytes):
        headers += [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))]
        await client.send("PUT", "/v1/files/x", headers=headers)
        await client.send_raw(body[:-1])
    else:
        assert isinstance(body, dict)
        # Who is to leave in the middle of a stream finds it going on, however long this machine takes to look.
        body = {**body, "max_tokens": body["max_tokens"] if leave_at is None else 5000}
        await client.send("POST", CHAT, body, headers)
    try:
        if isinstance(body, bytes) and leave_at is None:
            # Not before: the sockets between might take the whole of it before anybody has looked.
            await until(lambda: Phase.UPLOADING in leaver.phases, "the upload")
            await client.send_raw(body[-1:])
        if leave_at is None:
            answer = await client.answer()
            assert answer.status == (404 if isinstance(body, bytes) else 200), answer
        else:
            await until(lambda: leaver.left, f"await number {leave_at}: {leaver.phases}")
    finally:
        leaver.stop()
        if scene.task is not None:
            scene.task.cancel()
    return scene, leaver, client


@pytest.mark.parametrize("story", STORIES)
async def test_the_stories_have_these_awaits(stage: Stage, story: str) -> None:
    _, leaver, _ = await tell(stage, story, None)
    phases = STORIES[story][3]
    # A short answer may come in one piece, so that there is nothing left to relay.
    assert leaver.phases in (phases, phases[:-1])


CUTS = [(story, number) for story, (*_, phases) in STORIES.items() for number in range(1, len(phases) + 1)]


@pytest.mark.parametrize(("story", "leave_at"), CUTS, ids=[f"{story} {number}" for story, number in CUTS])
async def test_leaving_at_an_await_gives_everything_back(stage: Stage, story: str, leave_at: int) -> None:
    scene, leaver, _ = await tell(stage, story, leave_at)
    phases = STORIES[story][3]
    assert leaver.phases == phases[:leave_at]
    record = await scene.proxy.record(ID)
    assert record["outcome"] == "abandoned"
    assert record["status"] == (200 if phases[leave_at - 1] is RELAY else 499)
    assert scene.proxy.pool().queue.waiting == 0
    for hog in scene.hogs:
        hog.leave()
    await scene.proxy.without_clients()
    for engine in scene.engines:
        await until(lambda engine=engine: engine.in_flight == 0, "a free engine")
        assert engine.site.engine.running == engine.site.engine.waiting == 0
        engine.set_fault("")
        await engine.ready()
    # Everything works as before, on every backend.
    for _ in range(3):
        answer = await stage.ask(scene.proxy, chat(max_tokens=3))
        assert answer.events[-1] == "[DONE]"
    assert not [task for task in asyncio.all_tasks() if "ConnectionPool._connect" in repr(task.get_coro())]
