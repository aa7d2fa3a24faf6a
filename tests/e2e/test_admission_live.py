"""The production queue behind real sockets: priorities, deadlines, floods, leavers, and what is told of it."""

import asyncio
import hashlib

import aiohttp

from llmproxy.emulator import Emulator, EmulatorOptions, EngineOptions
from tests.harness.patience import Gate, whole
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

WHOLE = chat(stream=False, max_tokens=1)


def key(name: str, tier: str) -> dict[str, str]:
    return {"name": name, "tier": tier, "sha256": hashlib.sha256(name.encode()).hexdigest()}


def bearer(name: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {name}")]


KEYS = [key("acme", "enterprise"), key("dev", "free"), key("shop", "paid")]
TIERS = {"free": {"priority": "low"}, "paid": {"priority": "normal"}, "enterprise": {"priority": "high"}}


async def test_better_tiers_go_first_and_a_client_may_ask_for_less(stage: Stage) -> None:
    gate = Gate()
    proxy = await stage.proxy(await stage.scripted(gate), each={"max_concurrency": 1}, keys=KEYS, tiers=TIERS)
    asked: list[asyncio.Future[None]] = []
    order: list[str] = []

    async def ask(name: str, **headers: str) -> None:
        client = await stage.client(proxy)
        lines = [*bearer(name), *((f"X-LLMProxy-{word}", value) for word, value in headers.items())]
        before = gate.asked + proxy.pool().queue.waiting
        await client.send("POST", CHAT, WHOLE, lines)
        await until(lambda: gate.asked + proxy.pool().queue.waiting > before, "its arrival")

        async def answered() -> None:
            assert (await client.answer()).status == 200
            order.append(name + "".join(headers.values()))

        asked.append(asyncio.ensure_future(answered()))

    for name in ("shop", "dev", "shop", "acme"):
        await ask(name)
    await ask("acme", Priority="batch")
    gate.open(whole("200 OK", b"{}"))
    await asyncio.gather(*asked)
    assert order == ["shop", "acme", "shop", "dev", "acmebatch"]


async def test_what_would_be_late_is_shed_at_once_with_an_honest_word(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=60.0)
    pool = {"admission": {"slo": {"ttft": "100s"}}}
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, pool=pool)
    first = await stage.client(proxy)
    await first.send("POST", CHAT, WHOLE)
    await until(lambda: engine.in_flight == 1, "a busy engine")
    answer = await stage.ask(proxy, WHOLE, headers=[("X-Request-Timeout", "10ms")], id="late")
    assert (answer.status, answer.header("x-llmproxy-error")) == (503, "deadline")
    assert int(answer.header("retry-after") or 0) >= 1
    assert proxy.metric("llmproxy_shed_total", reason="deadline") == 1
    first.leave()


async def test_prompts_wait_here_and_not_in_the_engine(stage: Stage) -> None:
    options = EngineOptions(ttft_s=0.0, prefill_s_per_token=2e-3)
    engine = await stage._stack.enter_async_context(_emulator(options))
    proxy = await stage.proxy(engine, pool={"policy": {"name": "expected_cost", "prefill_tokens_per_s": 500}})
    body = chat(max_tokens=2)
    body["messages"] = [{"role": "user", "content": "word " * 200}]
    asked = [asyncio.ensure_future(stage.ask(proxy, body)) for _ in range(12)]
    await until(lambda: proxy.pool().queue.waiting > 3, "a queue here")
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} == {200}
    assert proxy.pool().queue.waiting == 0


async def test_overload_ends_well(stage: Stage) -> None:
    """Far more than fits: everything is answered or shed, the high tier always answered, and then all is calm."""
    gates = [Gate(), Gate()]
    engines = [await stage.scripted(gate) for gate in gates]
    pool = {"queue": {"max": 20, "tenant_max": 10, "wait": "60s"}}
    proxy = await stage.proxy(*engines, each={"max_concurrency": 2}, pool=pool, keys=KEYS, tiers=TIERS)
    flood = [asyncio.ensure_future(stage.ask(proxy, WHOLE, headers=bearer("dev"))) for _ in range(80)]
    await until(lambda: proxy.metric("llmproxy_shed_total", reason="tenant_queue_full") == 66, "a flood")
    high = [asyncio.ensure_future(stage.ask(proxy, WHOLE, headers=bearer("acme"))) for _ in range(10)]
    await until(lambda: proxy.pool().queue.waiting == 20, "a full queue")
    for gate in gates:
        gate.open(whole("200 OK", b"{}"))
    assert [answer.status for answer in await asyncio.gather(*high)] == [200] * 10
    statuses = [answer.status for answer in await asyncio.gather(*flood)]
    assert (statuses.count(200), statuses.count(503)) == (14, 66)
    assert (await stage.ask(proxy, WHOLE, headers=bearer("shop"))).status == 200


async def test_a_flood_that_fills_the_queue_keeps_no_better_priority_out(stage: Stage) -> None:
    """Whoever makes way is told, also where it has been sent comments already, and frees its place."""
    gate = Gate()
    pool = {"queue": {"max": 4, "heartbeat": "100ms"}}
    engine = await stage.scripted(gate)
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, pool=pool, keys=KEYS, tiers=TIERS)
    flood = [asyncio.ensure_future(stage.ask(proxy, chat(max_tokens=1), headers=bearer("dev"))) for _ in range(5)]
    await until(lambda: proxy.pool().queue.waiting == 4, "a full queue")
    await until(lambda: proxy.metric("llmproxy_heartbeats_total") >= 4, "comments")
    better = asyncio.ensure_future(stage.ask(proxy, chat(max_tokens=1), headers=bearer("acme")))
    await until(lambda: proxy.metric("llmproxy_shed_total", reason="queue_full") == 1, "somebody who makes way")
    gate.open(
        whole("200 OK", b'data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n', "text/event-stream")
    )
    assert (await better).status == 200
    answers = await asyncio.gather(*flood)
    assert [answer.status for answer in answers] == [200] * 5
    told = [answer.events[-1]["error"]["code"] for answer in answers if answer.events[-1] != "[DONE]"]
    assert told == ["queue_full"]
    assert (await stage.ask(proxy, chat(max_tokens=1), headers=bearer("dev"))).status == 200


async def test_hundreds_who_leave_the_queue_leave_nothing(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=60.0)
    proxy = await stage.proxy(engine, each={"max_concurrency": 1})
    clients = [await stage.client(proxy) for _ in range(200)]
    for client in clients:
        await client.send("POST", CHAT, WHOLE)
    await until(lambda: proxy.pool().queue.waiting == 199, "a long queue")
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.admin_url}/admin/queue") as response:
        told = (await response.json())["pools"]["main"]
    assert (told["waiting"], told["by_priority"]["normal"], len(told["tenants"])) == (199, 199, 1)
    assert told["waiting_bytes"] > 0
    assert proxy.metric("llmproxy_queue_waiting_by_priority", priority="normal") == 199
    for client in clients:
        client.leave()
    await until(lambda: proxy.pool().queue.waiting == 0, "nobody waiting")
    queue = proxy.pool().queue.queue
    assert (queue.bytes, queue.remembered, queue.in_line()) == (0, 0, [])


def _emulator(engine: EngineOptions) -> Emulator:
    return Emulator(EmulatorOptions(engine=engine, keepalive_s=60.0))
