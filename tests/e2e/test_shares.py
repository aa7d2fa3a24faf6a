"""How requests are shared out, and how they wait when every backend is full."""

import asyncio

from tests.harness.client import Answer
from tests.harness.patience import Gate, whole
from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

QUICK = {"health": {"interval": "50ms"}}
WHOLE = chat(stream=False, max_tokens=1)


async def test_twenty_at_once_spread_evenly_over_two(stage: Stage) -> None:
    gates = [Gate(), Gate()]
    proxy = await stage.proxy(*[await stage.scripted(gate) for gate in gates])
    asked = [asyncio.ensure_future(stage.ask(proxy, WHOLE)) for _ in range(20)]
    await until(lambda: sum(gate.asked for gate in gates) == 20, "all twenty")
    assert [gate.asked for gate in gates] == [10, 10]
    assert [backend.load.in_flight for backend in proxy.pool().backends] == [10, 10]
    assert proxy.metric("llmproxy_in_flight") == 20
    await _let_through(gates, asked)


async def test_weights_are_shares(stage: Stage) -> None:
    gates = [Gate(), Gate()]
    urls = [(await stage.scripted(gate)).url for gate in gates]
    proxy = await stage.proxy({"url": urls[0], "weight": 3}, {"url": urls[1], "weight": 1})
    asked = [asyncio.ensure_future(stage.ask(proxy, WHOLE)) for _ in range(20)]
    await until(lambda: sum(gate.asked for gate in gates) == 20, "all twenty")
    assert [gate.asked for gate in gates] == [15, 5]
    await _let_through(gates, asked)


async def _let_through(gates: list[Gate], asked: list[asyncio.Future[Answer]]) -> None:
    for gate in gates:
        gate.open(whole("200 OK", b"{}"))
    for answer in await asyncio.gather(*asked):
        assert answer.status == 200


def _arrived(proxy: Proxy, gates: list[Gate]) -> int:
    return sum(gate.asked for gate in gates) + int(proxy.pool().queue.waiting)


async def test_when_all_are_full_the_first_to_come_is_the_first_to_go(stage: Stage) -> None:
    gates = [Gate(), Gate()]
    engines = [await stage.scripted(gate) for gate in gates]
    # One at a time each: of two at once the engine may read either first.
    proxy = await stage.proxy(*engines, each={"max_concurrency": 1})
    asked = []
    for number in range(12):
        client = await stage.client(proxy)
        await client.send("POST", CHAT, WHOLE, [("X-Request-Id", f"q{number}")])
        await until(lambda n=number: _arrived(proxy, gates) > n, "its arrival")
        assert max(backend.load.in_flight for backend in proxy.pool().backends) <= 1
        asked.append(asyncio.ensure_future(client.answer()))
    assert (sum(gate.asked for gate in gates), proxy.pool().queue.waiting) == (2, 10)
    await _let_through(gates, asked)
    for engine in engines:
        order = [int((turn.header("x-request-id") or "")[1:]) for turn in engine.turns]
        assert order == sorted(order)
    waited = [line["queue_ms"] for line in await proxy.log() if line["queue_ms"]]
    assert len(waited) == 10
    assert proxy.metric("llmproxy_queue_seconds_count") == 10


async def test_a_full_queue_is_said_at_once(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=60.0)
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, pool={"queue": {"max": 1, "wait": "60s"}})
    clients = [await stage.client(proxy) for _ in range(2)]
    for client in clients:
        await client.send("POST", CHAT, WHOLE)
    await until(lambda: engine.in_flight == 1 and proxy.pool().queue.waiting == 1, "a full queue")
    assert proxy.metric("llmproxy_queue_waiting") == 1
    answer = await stage.ask(proxy, WHOLE, id="shed")
    assert (answer.status, answer.header("x-llmproxy-error")) == (503, "queue_full")
    assert int(answer.header("retry-after") or 0) >= 1
    assert (await proxy.record("shed"))["backend"] == "none"
    assert proxy.metric("llmproxy_shed_total", reason="queue_full") == 1


async def test_the_wait_is_bounded(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=60.0)
    proxy = await stage.proxy(engine, each={"max_concurrency": 1})
    client = await stage.client(proxy)
    await client.send("POST", CHAT, WHOLE)
    await until(lambda: engine.in_flight == 1, "a full backend")
    waiting = asyncio.ensure_future(stage.ask(proxy, WHOLE, id="late"))
    await until(lambda: proxy.pool().queue.waiting == 1, "a queue")
    stage.clock.jump(31)
    answer = await waiting
    assert (answer.status, answer.header("x-llmproxy-error")) == (503, "queue_timeout")
    assert answer.header("retry-after")
    record = await proxy.record("late")
    assert record["queue_ms"] > 31_000
    assert proxy.metric("llmproxy_shed_total", reason="queue_timeout") == 1


async def test_who_waits_when_the_last_backend_dies_is_told(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=60.0)
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, pool=QUICK)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, WHOLE)
    await until(lambda: engine.in_flight == 1, "a full backend")
    waiting = asyncio.ensure_future(stage.ask(proxy, WHOLE))
    await until(lambda: proxy.pool().queue.waiting == 1, "a queue")
    proxy.pool().health.drain(proxy.backend("b1"), 0.0)
    answer = await waiting
    assert (answer.status, answer.header("x-llmproxy-error")) == (503, "no_backend_available")


async def test_a_retry_waits_for_a_backend_it_may_use_and_others_pass_it_by(stage: Stage) -> None:
    """One backend has failed it and has room, the other is full: it must neither be let out for the first one's room
    again and again, nor keep those behind it from that room."""

    async def script(turn: Turn) -> None:
        if turn.header("x-request-id") in ("longer", "retried"):
            turn.reset()
        else:
            await turn.answer(b"{}")

    engine, broken = await stage.backend(itl_s=0.005), await stage.scripted(script)
    pool = {"breaker": {"failures": 1000, "min_requests": 1000}, "policy": "least_connections"}
    proxy = await stage.proxy(engine, {"url": broken.url, "id": "broken"}, each={"max_concurrency": 1}, pool=pool)
    longer = await stage.client(proxy)
    await longer.send("POST", CHAT, chat(max_tokens=100_000), [("X-Request-Id", "longer")])
    await until(lambda: engine.in_flight == 1, "a full engine")
    retried = await stage.client(proxy)
    await retried.send("POST", CHAT, WHOLE, [("X-Request-Id", "retried")])
    await until(lambda: proxy.pool().queue.waiting == 1, "a retry that waits")
    # Others use the room that it cannot use.
    for _ in range(3):
        assert (await stage.ask(proxy, WHOLE)).header("x-llmproxy-backend") == "broken"
    assert proxy.pool().queue.waiting == 1
    longer.leave()
    answer = await retried.answer()
    assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "b1")
    assert (await proxy.record("retried"))["retries"] == ["reset"]
