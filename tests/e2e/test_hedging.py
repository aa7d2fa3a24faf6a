"""A second attempt beside one that is late: the quicker one answers, and of the other nothing is left."""

import asyncio
from typing import Any

import pytest

from llmproxy.core.backend import Status
from llmproxy.pipeline.hedging import Chase
from llmproxy.policy.admission.ticket import Ticket
from tests.harness.client import Client
from tests.harness.patience import LAST, STREAM, WORD, Gate, begun, chunked, whole
from tests.harness.proxy import Proxy
from tests.harness.scripted import Scripted
from tests.harness.stage import CHAT, MODEL, Stage, chat
from tests.harness.waiting import until

HEDGE: dict[str, Any] = {"hedge": {"budget": "2%"}}
ANSWER = STREAM + chunked(WORD, LAST)
OTHER = STREAM + chunked(WORD, WORD, LAST)


class Scene:
    """Two engines that answer when they are let; `b1` is asked first. The proxy knows how long first tokens take."""

    def __init__(self, stage: Stage, proxy: Proxy, engines: list[Scripted], gates: list[Gate]) -> None:
        self.stage, self.proxy, self.engines, self.gates = stage, proxy, engines, gates

    @classmethod
    async def open(cls, stage: Stage, *, each: Any = None, known: bool = True, **pool: Any) -> "Scene":
        gates = [Gate(), Gate()]
        engines = [await stage.scripted(gate) for gate in gates]
        entries = [{"url": engine.url, "weight": 10.0 ** -(3 * place)} for place, engine in enumerate(engines)]
        proxy = await stage.proxy(*entries, each=each, pool={"policy": "round_robin"} | HEDGE | pool)
        scene = cls(stage, proxy, engines, gates)
        return scene.taught() if known else scene

    def taught(self) -> "Scene":
        hedges = self.proxy.pool().queue.hedges
        for _ in range(60):
            hedges.sent()
            hedges.first_token(0.5)
        return self

    async def ask(self, body: Any = None, path: str = CHAT, headers: Any = ()) -> Client:
        """A request that `b1` has, and has not answered within a second."""
        client = await self.stage.client(self.proxy)
        before = self.gates[0].asked
        await client.send("POST", path, body or chat(), [("X-Request-Id", "late"), *headers])
        await until(lambda: self.gates[0].asked > before, "the request")
        self.late()
        return client

    def late(self) -> None:
        self.stage.clock.jump(1.0)
        self.proxy.app._deadlines.sweep(self.stage.clock())

    async def hedged(self) -> None:
        await until(lambda: self.gates[1].asked == 1, "a second attempt")

    def count(self, event: str) -> float:
        return self.proxy.metric("llmproxy_hedges_total", event=event)

    def attempts(self, backend: str) -> dict[str, float]:
        counts = {
            outcome: self.proxy.metric("llmproxy_attempts_total", backend=backend, outcome=outcome)
            for outcome in ("ok", "abandoned", "reset", "server_error", "refused", "busy")
        }
        return {outcome: count for outcome, count in counts.items() if count}

    async def given_up(self, number: int) -> None:
        """The proxy has cut the connection to this engine, which notices when it begins to answer."""
        self.gates[number].open(OTHER)
        await until(lambda: self.engines[number].left, "an attempt that was given up")

    @property
    def in_flight(self) -> list[int]:
        return [self.proxy.backend(id).load.in_flight for id in ("b1", "b2")]


@pytest.mark.parametrize("policy", ["round_robin", "expected_cost"])
async def test_the_second_is_quicker(stage: Stage, policy: str) -> None:
    scene = await Scene.open(stage, policy=policy)
    client = await scene.ask()
    await scene.hedged()
    assert scene.in_flight == [1, 1]
    scene.gates[1].open(ANSWER)
    answer = await client.answer()
    assert (answer.body, answer.header("x-llmproxy-backend")) == (WORD + LAST, "b2")
    await scene.given_up(0)
    record = await scene.proxy.record("late")
    assert (record["backend"], record["attempts"], record["outcome"], record["retries"]) == ("b2", 2, "ok", [])
    assert (scene.count("sent"), scene.count("won")) == (1, 1)
    assert (scene.attempts("b1"), scene.attempts("b2")) == ({"abandoned": 1}, {"ok": 1})
    assert scene.in_flight == [0, 0]
    assert scene.engines[0].bodies == scene.engines[1].bodies
    assert not [item for item in scene.proxy.app._deadlines._items if isinstance(item, Chase)]
    if policy == "expected_cost":
        pool = scene.proxy.pool()
        assert [pool.routing.backlog_s(backend, stage.clock()) for backend in pool.backends] == [0, 0]


async def test_the_first_is_quicker_after_all(stage: Stage) -> None:
    scene = await Scene.open(stage)
    client = await scene.ask()
    await scene.hedged()
    scene.gates[0].open(ANSWER)
    answer = await client.answer()
    assert (answer.body, answer.header("x-llmproxy-backend")) == (WORD + LAST, "b1")
    await scene.given_up(1)
    assert (scene.count("sent"), scene.count("won")) == (1, 0)
    assert (scene.attempts("b1"), scene.attempts("b2")) == ({"ok": 1}, {"abandoned": 1})
    assert (await scene.proxy.record("late"))["attempts"] == 1
    assert scene.in_flight == [0, 0]


FAILURES: list[tuple[bytes, bool, dict[str, float]]] = [
    (b"", True, {"reset": 1}),
    (STREAM, True, {"reset": 1}),
    (whole("500 Oh", b"{}"), False, {"server_error": 1}),
    (whole("429 No", b"{}"), False, {"busy": 1}),
    (whole("400 No", b"{}"), False, {"ok": 1}),
]


@pytest.mark.parametrize(("said", "reset", "counted"), FAILURES)
async def test_a_second_that_fails_is_not_noticed(
    stage: Stage, said: bytes, reset: bool, counted: dict[str, float]
) -> None:
    scene = await Scene.open(stage)
    client = await scene.ask()
    await scene.hedged()
    scene.gates[1].open(said, reset=reset)
    await until(lambda: scene.in_flight == [1, 0], "the end of it")
    assert scene.attempts("b2") == counted
    scene.gates[0].open(ANSWER)
    assert (await client.answer()).body == WORD + LAST
    assert (await scene.proxy.record("late"))["backend"] == "b1"
    # A connection that is whole can be used again.
    assert scene.proxy.connections_to("b2").open == (0 if reset else 1)


async def test_a_second_that_finds_nobody(stage: Stage) -> None:
    scene = await Scene.open(stage)
    await scene.engines[1].__aexit__(None, None, None)
    client = await scene.ask()
    await until(lambda: scene.attempts("b2") == {"refused": 1}, "an attempt")
    scene.gates[0].open(ANSWER)
    assert (await client.answer()).body == WORD + LAST


async def test_when_the_first_fails_meanwhile_the_request_is_tried_again(stage: Stage) -> None:
    scene = await Scene.open(stage)
    client = await scene.ask()
    await scene.hedged()
    scene.gates[0].open(b"", reset=True)
    await until(lambda: scene.gates[1].asked == 2, "another attempt")
    scene.gates[1].open(ANSWER)
    assert (await client.answer()).body == WORD + LAST
    assert scene.attempts("b2") == {"abandoned": 1, "ok": 1}


async def test_what_breaks_after_it_won_breaks_at_its_backend(stage: Stage) -> None:
    scene = await Scene.open(stage)
    client = await scene.ask()
    await scene.hedged()
    scene.gates[1].open(STREAM + chunked(WORD)[:-5], reset=True)
    answer = await client.answer()
    assert (answer.events[-1]["error"]["code"], answer.cut) == ("upstream_lost", False)
    record = await scene.proxy.record("late")
    assert (record["backend"], record["outcome"]) == ("b2", "cut")
    assert scene.attempts("b1") == {"abandoned": 1}


async def test_a_client_that_leaves_both(stage: Stage) -> None:
    scene = await Scene.open(stage)
    client = await scene.ask()
    await scene.hedged()
    client.leave()
    await until(lambda: scene.in_flight == [0, 0], "free backends")
    await scene.given_up(0)
    await scene.given_up(1)
    assert (scene.attempts("b1"), scene.attempts("b2")) == ({"abandoned": 1}, {"abandoned": 1})
    await scene.proxy.at_rest()


async def test_the_second_ends_with_the_firsts_first_token(stage: Stage) -> None:
    """Not with its last."""
    scene = await Scene.open(stage)
    client = await scene.ask()
    await scene.hedged()
    scene.gates[0].open(STREAM + chunked(WORD)[:-5])
    answer = await client.head()
    assert await client.chunk(answer) == WORD
    assert scene.in_flight == [1, 0]
    await scene.given_up(1)
    client.leave()


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_second_that_is_still_connecting(stage: Stage, leaves: bool) -> None:
    deaf = await stage.deaf()
    gate = Gate()
    engine = await stage.scripted(gate)
    entries = {"url": engine.url}, {"url": deaf.url, "weight": 1e-3}
    proxy = await stage.proxy(*entries, pool=HEDGE | {"policy": "round_robin", "timeouts": {"connect": "60s"}})
    await deaf.turn_deaf()
    scene = Scene(stage, proxy, [engine], [gate]).taught()
    client = await scene.ask()
    scene.late()
    await until(lambda: scene.in_flight == [1, 1], "a second attempt")
    if leaves:
        client.leave()
    else:
        gate.open(ANSWER)
        assert (await client.answer()).body == WORD + LAST
    await until(lambda: scene.in_flight == [0, 0], "free backends")
    assert scene.attempts("b2") == {"abandoned": 1}


async def test_the_proxy_stops_meanwhile(stage: Stage) -> None:
    scene = await Scene.open(stage)
    client = await scene.ask()
    await scene.hedged()
    stopping = asyncio.ensure_future(scene.proxy.app.stop(0.0))
    assert (await client.answer()).status == 503
    await stopping
    assert scene.in_flight == [0, 0]


async def test_there_is_a_budget(stage: Stage) -> None:
    scene = await Scene.open(stage)
    clients = [await scene.ask()]
    await scene.hedged()
    clients.append(await scene.ask())
    assert (scene.count("sent"), scene.in_flight) == (1, [2, 1])
    scene.gates[0].open(ANSWER)
    for client in clients:
        assert (await client.answer()).header("x-llmproxy-backend") == "b1"


async def test_not_before_it_is_late(stage: Stage) -> None:
    scene = await Scene.open(stage, hedge={"budget": "2%", "least": "5s"})
    client = await scene.ask()
    assert scene.count("sent") == 0
    stage.clock.jump(5)
    await scene.hedged()
    scene.gates[1].open(ANSWER)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("body", "path", "headers"),
    [
        (chat(stream=False), CHAT, []),
        ({"model": MODEL, "input": "hello", "stream": True}, "/v1/responses", []),
        (chat(), CHAT, [("X-LLMProxy-Priority", "batch")]),
        (chat(), "/v1/something/else", []),
    ],
)
async def test_what_is_not_hedged(stage: Stage, body: Any, path: str, headers: Any) -> None:
    scene = await Scene.open(stage)
    client = await scene.ask(body, path, headers)
    scene.late()
    scene.gates[0].open(ANSWER)
    assert (await client.answer()).status == 200
    assert (scene.count("sent"), scene.gates[1].asked) == (0, 0)


async def test_a_request_that_was_tried_again_is_not_hedged(stage: Stage) -> None:
    scene = await Scene.open(stage)
    scene.gates[0].open(b"", reset=True)
    client = await scene.ask()
    await until(lambda: scene.gates[1].asked == 1, "another attempt")
    scene.late()
    assert scene.count("sent") == 0
    scene.gates[1].open(ANSWER)
    assert (await client.answer()).header("x-llmproxy-backend") == "b2"


async def test_nobody_is_hedged_while_anybody_waits(stage: Stage) -> None:
    scene = await Scene.open(stage)
    queue: Any = scene.proxy.pool().queue
    ticket: Ticket[Any] = Ticket()
    queue.enter(ticket, stage.clock(), lambda ticket, reason: None)
    client = await scene.ask()
    assert scene.count("sent") == 0
    queue.leave(ticket)
    scene.gates[0].open(ANSWER)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("options", [{"known": False}, {"hedge": {}}])
async def test_nothing_is_hedged_unasked_or_untaught(stage: Stage, options: dict[str, Any]) -> None:
    scene = await Scene.open(stage, **options)
    client = await scene.ask()
    scene.gates[0].open(ANSWER)
    assert (await client.answer()).status == 200
    assert (scene.gates[1].asked, scene.count("sent")) == (0, 0)


async def test_never_when_there_is_no_room(stage: Stage) -> None:
    scene = await Scene.open(stage, each={"max_concurrency": 1})
    first = await scene.ask()
    await scene.hedged()
    assert scene.in_flight == [1, 1]
    hedges = scene.proxy.pool().queue.hedges
    for _ in range(200):
        hedges.sent()
    waiting = await stage.client(scene.proxy)
    await waiting.send("POST", CHAT, chat())
    await until(lambda: scene.proxy.pool().queue.waiting == 1, "a queue")
    scene.late()
    scene.gates[1].open(ANSWER)
    assert (await first.answer()).header("x-llmproxy-backend") == "b2"
    # The place of the slower one is free for whoever waits.
    scene.gates[0].open(OTHER)
    assert (await waiting.answer()).status == 200
    assert scene.count("sent") == 1


async def test_a_sick_backend_is_not_asked(stage: Stage) -> None:
    scene = await Scene.open(stage)
    pool = scene.proxy.pool()
    pool.health.drain(scene.proxy.backend("b2"), stage.clock())
    assert scene.proxy.backend("b2").status is Status.DRAINING
    client = await scene.ask()
    scene.gates[0].open(ANSWER)
    assert (await client.answer()).status == 200
    assert scene.count("sent") == 0


async def test_behind_heartbeats(stage: Stage) -> None:
    scene = await Scene.open(stage, queue={"heartbeat": "5s"})
    client = await scene.ask()
    await scene.hedged()
    answer = await begun(stage, client)
    scene.gates[1].open(ANSWER)
    await client.rest(answer)
    assert answer.body.endswith(b"\n\n" + WORD + LAST)
    assert (await scene.proxy.record("late"))["backend"] == "b2"
