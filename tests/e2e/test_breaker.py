"""Passive health: failures that requests see take a backend out, one good trial brings it back."""

import asyncio

from llmproxy.core.backend import Status
from tests.harness.proxy import Proxy
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

WHOLE = chat(stream=False, max_tokens=1)
BREAKER = {"breaker": {"failures": 5, "open_for": "60s", "max_open_for": "60s"}, "health": {"slow_start": "0s"}}


def wait_for_trial(stage: Stage, proxy: Proxy) -> None:
    """Let the time of being open go by."""
    assert proxy.backend("b1").status is Status.OPEN
    stage.clock.jump(61)
    assert proxy.pool().health.status(proxy.backend("b1"), stage.clock()) is Status.HALF_OPEN


async def test_the_breaker_opens_after_five_failures_and_closes_after_a_good_trial(stage: Stage) -> None:
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool=BREAKER)
    engines[0].set_fault("die_after=0")
    for _ in range(20):
        assert (await stage.ask(proxy, chat(max_tokens=2))).events[-1] == "[DONE]"
    assert engines[0].received == 5
    assert proxy.backend("b1").status is Status.OPEN
    assert proxy.metric("llmproxy_breaker_state", backend="b1") == 2
    # Half-open, it gets one request, which fails: open again, and the client sees nothing of it.
    wait_for_trial(stage, proxy)
    for _ in range(4):
        assert (await stage.ask(proxy, chat(max_tokens=2))).events[-1] == "[DONE]"
    assert engines[0].received == 6
    engines[0].set_fault("")
    wait_for_trial(stage, proxy)
    assert {(await stage.ask(proxy, WHOLE)).header("x-emulator") for _ in range(6)} == {"b1", "b2"}
    assert proxy.backend("b1").status is Status.HEALTHY


async def test_half_open_one_request_at_a_time_tries_it(stage: Stage) -> None:
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool=BREAKER)
    engines[0].set_fault("status=500")
    for _ in range(10):
        assert (await stage.ask(proxy, WHOLE)).status == 200
    assert proxy.backend("b1").status is Status.OPEN
    before = engines[0].received
    engines[0].set_fault("hang")
    wait_for_trial(stage, proxy)
    clients = [await stage.client(proxy) for _ in range(8)]
    for client in clients:
        await client.send("POST", CHAT, WHOLE)
    await until(lambda: engines[1].served >= 7 and engines[0].received == before + 1, "one trial")
    # The trial's client leaves: that says nothing about the backend, and the next request may be the trial.
    for client in clients:
        client.leave()
    await proxy.at_rest()
    engines[0].set_fault("")
    assert {(await stage.ask(proxy, WHOLE)).header("x-emulator") for _ in range(6)} == {"b1", "b2"}


async def test_a_dead_backend_is_out_within_five_failures_under_load(stage: Stage) -> None:
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool={"breaker": {"failures": 5, "open_for": "60s"}})
    engines[0].kill()
    answers = await asyncio.gather(*(stage.ask(proxy, chat(max_tokens=3)) for _ in range(40)))
    assert {(answer.status, answer.header("x-emulator")) for answer in answers} == {(200, "b2")}
    more = proxy.metric("llmproxy_attempts_total", backend="b1", outcome="refused")
    for _ in range(10):
        assert (await stage.ask(proxy, WHOLE)).status == 200
    assert proxy.metric("llmproxy_attempts_total", backend="b1", outcome="refused") == more
    await engines[0].revive()


async def test_at_least_one_stays_in_and_panic_tries_the_ejected(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool={"breaker": {"failures": 3, "open_for": "60s"}})
    engine.set_fault("status=500")
    for _ in range(6):
        assert (await stage.ask(proxy, WHOLE)).status == 500
    assert engine.received == 6
    engine.set_fault("")
    assert (await stage.ask(proxy, WHOLE)).status == 200


async def test_busy_is_not_sick(stage: Stage) -> None:
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool=BREAKER)
    engines[0].set_fault("status=429")
    for _ in range(20):
        assert (await stage.ask(proxy, WHOLE)).header("x-emulator") == "b2"
    assert proxy.backend("b1").status is Status.HEALTHY
    # It is passed over for a moment, not asked and refused each time.
    assert engines[0].received < 10


async def test_clients_that_leave_do_not_open_the_breaker(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=60.0)
    proxy = await stage.proxy(engine, pool=BREAKER)
    for _ in range(8):
        client = await stage.client(proxy)
        await client.send("POST", CHAT, chat())
        await until(lambda: engine.in_flight == 1, "the request")
        client.leave()
        await until(lambda: engine.in_flight == 0, "the abort")
    assert proxy.backend("b1").status is Status.HEALTHY
    assert proxy.metric("llmproxy_abandoned_total") == 8


async def test_a_full_engine_is_busy_too(stage: Stage) -> None:
    """vLLM with `--max-num-queued-reqs` says 503 without Retry-After; only its words tell that it is not sick."""
    full = await stage.backend(name="b1", ttft_s=60.0, max_num_seqs=1, max_queued=0)
    proxy = await stage.proxy(full, await stage.backend(name="b2"), pool=BREAKER)
    holding = await stage.client(full)
    await holding.send("POST", CHAT, WHOLE)
    await until(lambda: full.in_flight == 1, "a full engine")
    for number in range(12):
        assert (await stage.ask(proxy, WHOLE, id=f"f{number}")).header("x-emulator") == "b2"
    assert {cause for line in await proxy.log() for cause in line["retries"]} == {"busy"}
    assert proxy.backend("b1").status is Status.HEALTHY
