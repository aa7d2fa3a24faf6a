"""How often a request is tried, and which are not tried again at all."""

import asyncio
from typing import Any

import pytest

from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MODEL, Stage, chat
from tests.harness.waiting import until

NO_BUDGET = {"budget": 0, "budget_floor": 0}


async def fleet(stage: Stage, fault: str, count: int = 3, **retry: Any) -> tuple[Proxy, list[Any]]:
    """A proxy over backends that all have `fault`."""
    engines = await stage.backends(count)
    proxy = await stage.proxy(*engines, pool={"retry": retry})
    for engine in engines:
        engine.set_fault(fault)
    return proxy, engines


@pytest.mark.parametrize(("attempts", "asked"), [(1, 1), (2, 2), (3, 3)])
async def test_attempts_are_bounded(stage: Stage, attempts: int, asked: int) -> None:
    proxy, engines = await fleet(stage, "status=500", 4, attempts=attempts)
    answer = await stage.ask(proxy, chat(), id="bounded")
    assert answer.status == 500
    assert sum(engine.received for engine in engines) == asked
    record = await proxy.record("bounded")
    assert (record["attempts"], record["retries"]) == (asked, ["server_error"] * (asked - 1))


async def test_no_backend_is_asked_twice(stage: Stage) -> None:
    proxy, engines = await fleet(stage, "status=500", 2, attempts=9)
    assert (await stage.ask(proxy, chat())).status == 500
    assert [engine.received for engine in engines] == [1, 1]


@pytest.mark.parametrize(("after_crash", "killed"), [(0, 1), (1, 2), (2, 3)])
async def test_a_poisonous_prompt_does_not_kill_engine_after_engine(
    stage: Stage, after_crash: int, killed: int
) -> None:
    proxy, engines = await fleet(stage, "die_after=0", 4, attempts=9, after_crash=after_crash)
    answer = await stage.ask(proxy, chat())
    assert (answer.status, answer.header("x-llmproxy-error")) == (502, "upstream_lost")
    assert sum(engine.received for engine in engines) == killed


async def test_without_a_budget_only_a_proven_loss_moves(stage: Stage) -> None:
    proxy, engines = await fleet(stage, "status=500", **NO_BUDGET)
    assert (await stage.ask(proxy, chat())).status == 500
    assert sum(engine.received for engine in engines) == 1


@pytest.mark.parametrize("fault", ["refuse", "reset"])
async def test_and_that_once(stage: Stage, fault: str) -> None:
    proxy, engines = await fleet(stage, fault, **NO_BUDGET, after_crash=9)
    answer = await stage.ask(proxy, chat(), id="twice")
    assert answer.status == 502
    assert (await proxy.record("twice"))["attempts"] == 2
    engines[0].set_fault("")
    engines[1].set_fault("")
    await engines[0].ready()
    await engines[1].ready()
    for _ in range(6):
        assert (await stage.ask(proxy, chat())).status == 200


async def test_the_budget_is_shared(stage: Stage) -> None:
    """Every request wants a second try at the same time; two may have one, and when those are over the next may."""
    engines = await stage.backends(2)
    entries = [{"url": engines[0].url, "weight": 1000}, {"url": engines[1].url, "weight": 1}]
    retry = {"budget": 0, "budget_floor": 2}
    proxy = await stage.proxy(*entries, pool={"policy": "round_robin", "retry": retry, "breaker": {"failures": 1000}})
    engines[0].set_fault("status=500")
    engines[1].set_fault("hang")
    clients = [await stage.client(proxy) for _ in range(6)]
    for number, client in enumerate(clients):
        await client.send("POST", CHAT, chat(), [("X-Request-Id", f"r{number}")])
    answers = {number: asyncio.ensure_future(client.answer()) for number, client in enumerate(clients)}
    await until(lambda: sum(answer.done() for answer in answers.values()) == 4, "four refusals")
    assert {answer.result().status for answer in answers.values() if answer.done()} == {500}
    assert engines[1].received == 2
    assert proxy.pool().retries.retries == 2
    for number, answer in answers.items():
        if not answer.done():
            answer.cancel()
            clients[number].leave()
    await proxy.at_rest()
    engines[1].set_fault("")
    assert (await stage.ask(proxy, chat())).header("x-emulator") == "b2"


# -- what may not be sent twice ----------------------------------------------------------------------------------------


async def once(stage: Stage, method: str, path: str, body: Any, fault: str) -> tuple[int, int]:
    """The status a client sees, and how many backends saw the request, when the first one that is asked fails."""

    async def script(turn: Turn) -> None:
        if fault == "reset" and len(first.turns) + len(second.turns) == 1:
            turn.reset()
        elif fault == "500" and len(first.turns) + len(second.turns) == 1:
            await turn.answer(b'{"error": "no"}', status="500 Failed")
        else:
            await turn.answer(b"{}")

    first, second = await stage.scripted(script), await stage.scripted(script)
    proxy = await stage.proxy(first, second)
    answer = await stage.ask(proxy, body, path, method=method)
    return answer.status, len(first.turns) + len(second.turns)


@pytest.mark.parametrize("fault", ["reset", "500"])
@pytest.mark.parametrize(
    ("method", "path", "body", "again"),
    [
        ("POST", "/v1/files", {"purpose": "batch"}, False),
        ("POST", "/v1/fine_tuning/jobs", {"model": MODEL}, False),
        ("PATCH", "/v1/files/x", {"a": 1}, False),
        ("POST", "/v1/responses/resp_x/cancel", {}, False),
        ("GET", "/v1/files", None, True),
        ("DELETE", "/v1/files/x", None, True),
        ("PUT", "/v1/files/x", {"a": 1}, True),
        ("POST", CHAT, chat(stream=False), True),
        ("POST", "/v1/audio/speech", {"model": MODEL, "input": "x"}, True),
    ],
)
async def test_only_what_does_no_harm_twice_is_sent_twice(
    stage: Stage, method: str, path: str, body: Any, again: bool, fault: str
) -> None:
    failed = 502 if fault == "reset" else 500
    assert await once(stage, method, path, body, fault) == ((200, 2) if again else (failed, 1))


async def test_what_never_left_may_be_sent_elsewhere_whatever_it_is(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.answer(b"{}")

    gone, well = await stage.backend(), await stage.scripted(script)
    proxy = await stage.proxy(gone, well)
    gone.set_fault("refuse")
    for _ in range(3):
        assert (await stage.ask(proxy, {"purpose": "batch"}, "/v1/files")).status == 200
    assert len(well.turns) == 3


async def test_a_body_that_streamed_through_is_not_sent_twice(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        turn.reset()

    first, second = await stage.scripted(script), await stage.scripted(script)
    proxy = await stage.proxy(first, second)
    headers = [("Content-Type", "application/octet-stream")]
    answer = await stage.ask(proxy, b"x" * 100_000, "/v1/files/x", method="PUT", headers=headers)
    assert answer.status == 502
    assert len(first.turns) + len(second.turns) == 1


async def test_a_stored_response_is_not_made_twice(stage: Stage) -> None:
    """Once its id was seen, the first engine has it."""

    async def script(turn: Turn) -> None:
        await turn.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n")
        await turn.say(b'{"id": "resp_abc", "output": [')
        turn.reset()

    first, second = await stage.scripted(script), await stage.scripted(script)
    proxy = await stage.proxy(first, second)
    answer = await stage.ask(proxy, {"model": MODEL, "input": "x"}, "/v1/responses")
    assert answer.status == 502
    assert len(first.turns) + len(second.turns) == 1
