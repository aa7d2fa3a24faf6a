"""What engines say of themselves, and engines that hang, through the whole product."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llmproxy.core.backend import Status
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import Prompt
from llmproxy.core.request import Request
from tests.harness.client import Answer
from tests.harness.proxy import Proxy
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

QUICK = {"signals": {"interval": "100ms", "timeout": "90ms", "max_age": "1000s"}}
# The engine is paused behind the prober's back: all that is seen of it is that it gets nowhere.
HANGS = QUICK | {"health": {"check_sleep": False, "slow_start": "0s"}, "progress": {"stalled_after": "60s"}}


async def tell(url: str, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.post(url + path) as response:
        assert response.status == 200


async def moves_on(proxy: Proxy, id: str, readings: int = 2) -> None:
    """Wait until its gauges were read a few times more."""
    for _ in range(readings):
        before = proxy.backend(id).gauges
        await until(lambda: proxy.backend(id).gauges is not before, f"new gauges of {id}")  # noqa: B023


async def is_(proxy: Proxy, id: str, status: Status) -> None:
    await until(lambda: proxy.backend(id).status is status, f"{id} {status.value}, not {proxy.backend(id)}")


async def test_gauges_are_in_the_admin_api_and_in_the_metrics(stage: Stage) -> None:
    engines = await stage.backends(2, itl_s=0.005)
    proxy = await stage.proxy(*engines, pool=QUICK | {"policy": "round_robin"})
    streams = [await stage.streaming(proxy, chat(max_tokens=100_000)) for _ in range(4)]
    for id in ("b1", "b2"):
        await until(lambda: proxy.metric("llmproxy_backend_running", backend=id) == 2, f"2 running on {id}")  # noqa: B023
    assert proxy.metric("llmproxy_backend_kv_tokens", backend="b1") == 8192 * 16
    assert proxy.metric("llmproxy_scrapes_total", backend="b1", source="engine", result="ok") > 0
    async with aiohttp.ClientSession() as http, http.get(f"{proxy.admin_url}/admin/pools/main") as response:
        gauges = (await response.json())["backends"][0]["gauges"]
    assert gauges["fresh"] is True
    assert gauges["running"] == 2
    assert gauges["generation_tokens"] > 0
    assert gauges["models"] == ["emulated"]
    assert gauges["gpu"] is None
    for client, _ in streams:
        client.leave()
    await until(lambda: proxy.metric("llmproxy_backend_running") == 0, "nothing running")


async def test_an_engine_without_metrics_serves_all_the_same(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool={"signals": QUICK["signals"] | {"path": "/nothing-here"}})
    await until(lambda: proxy.metric("llmproxy_scrapes_total", result="failed") >= 2, "failed reads")
    assert (await stage.ask(proxy, chat(stream=False))).status == 200
    assert proxy.backend("b1").gauges is None
    assert proxy.metric("llmproxy_backend_running") == 0


async def test_a_gpu_that_cannot_be_read_stops_nothing(stage: Stage) -> None:
    engine = await stage.backend()
    gpus = {"gpu": {"agent": "http://127.0.0.1:9", "device": 0}}
    proxy = await stage.proxy(engine, each=gpus, pool=QUICK | {"policy": "gpu_utilization"})
    await until(lambda: proxy.metric("llmproxy_scrapes_total", source="agent", result="failed") >= 2, "failed reads")
    assert (await stage.ask(proxy, chat(stream=False))).status == 200
    gauges = proxy.backend("b1").gauges
    assert gauges is not None
    assert gauges.gpu is None


async def test_a_hung_engine_is_taken_out_and_comes_back(stage: Stage) -> None:
    engines = await stage.backends(2, itl_s=0.005)
    proxy = await stage.proxy(*engines, pool=HANGS | {"policy": "round_robin"})
    streams = [await stage.streaming(proxy, chat(max_tokens=300)) for _ in range(2)]
    await tell(engines[0].url, "/pause")
    await moves_on(proxy, "b1", 3)
    # Nothing is wrong yet. Then a minute goes by in which only the other one moves.
    assert proxy.backend("b1").status is Status.HEALTHY
    stage.clock.jump(61)
    await is_(proxy, "b1", Status.UNHEALTHY)
    assert proxy.metric("llmproxy_backend_hangs_total", backend="b1") == 1
    assert proxy.backend("b2").status is Status.HEALTHY
    served = {(await stage.ask(proxy, chat(stream=False))).header("x-llmproxy-backend") for _ in range(4)}
    assert served == {"b2"}
    await tell(engines[0].url, "/resume")
    await is_(proxy, "b1", Status.HEALTHY)
    for client, answer in streams:
        await client.rest(answer)
        assert (len(answer.text.split()), answer.events[-1]) == (300, "[DONE]")


async def test_requests_that_wait_for_a_hung_engine_count_as_its_work(stage: Stage) -> None:
    """It hung before it took them up, so its own gauges speak of no work."""
    engine, other = await stage.backends(2)
    proxy = await stage.proxy(engine, other, pool=HANGS | {"policy": "round_robin"})
    engine.set_fault("hang")
    waiting = [asyncio.ensure_future(stage.ask(proxy, chat(stream=False))) for _ in range(2)]
    await until(lambda: sum(task.done() for task in waiting) == 1, "the other one's answer")
    await moves_on(proxy, "b1")
    gauges = proxy.backend("b1").gauges
    assert gauges is not None
    assert (gauges.running, gauges.waiting) == (0, 0)
    stage.clock.jump(61)
    await is_(proxy, "b1", Status.UNHEALTHY)
    # Someone else's request shows that it moves again.
    engine.set_fault("")
    assert (await stage.ask(engine, chat(stream=False))).status == 200
    await is_(proxy, "b1", Status.HEALTHY)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_long_prompt_is_no_hang(stage: Stage) -> None:
    """Nothing moves while it is computed: neither a counter nor a stream."""
    engine = await stage.backend()
    proxy = await stage.proxy(engine, pool=HANGS)
    await tell(engine.url, "/pause")
    long = chat(stream=False) | {"messages": [{"role": "user", "content": "word " * 50_000}]}
    waiting = asyncio.ensure_future(stage.ask(proxy, long))
    await until(lambda: proxy.app._in_flight.exchanges_at(proxy.backend("b1")), "a request that waits")
    await moves_on(proxy, "b1", 3)
    stage.clock.jump(61)
    await moves_on(proxy, "b1", 3)
    assert proxy.backend("b1").status is Status.HEALTHY
    assert proxy.metric("llmproxy_backend_hangs_total") == 0
    await tell(engine.url, "/resume")
    answer: Answer = await waiting
    assert answer.status == 200


async def test_the_speed_that_routing_has_seen_bounds_what_a_long_prompt_may_take(stage: Stage) -> None:
    """At the speed first guessed it would be given up after three minutes; its prompts have taken longer before."""
    engine = await stage.backend()
    patient = {"timeouts": {"first_byte": "1h"}}
    proxy = await stage.proxy(engine, pool=HANGS | patient | {"policy": "expected_cost"})
    backend, routing = proxy.backend("b1"), proxy.pool().routing
    before = Request(stream=True, prompt=lambda: Prompt(40_000))
    routing.pick([backend], before, 0.0)
    for moment, at in ((Moment.SENT, 0.0), (Moment.FIRST_TOKEN, 40.0), (Moment.FINISHED, 40.0)):
        routing.observe(moment, backend, before, at)
    await tell(engine.url, "/pause")
    long = chat(stream=False) | {"messages": [{"role": "user", "content": "word " * 30_000}]}
    waiting = asyncio.ensure_future(stage.ask(proxy, long))
    await until(lambda: proxy.app._in_flight.exchanges_at(backend), "a request that waits")
    await moves_on(proxy, "b1", 3)
    stage.clock.jump(200)
    await moves_on(proxy, "b1", 3)
    assert proxy.app._in_flight.work(backend).prefill_tokens_per_s == pytest.approx(250)
    assert backend.status is Status.HEALTHY
    stage.clock.jump(1000)
    await is_(proxy, "b1", Status.UNHEALTHY)
    await tell(engine.url, "/resume")
    await waiting


async def test_an_idle_engine_does_not_hang_nor_one_whose_client_does_not_read(stage: Stage) -> None:

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(text="vllm:num_requests_running 0\nvllm:generation_tokens_total 7\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b'data: {"choices": [{"text": "more"}]}\n\n' * 1000)

    async with served(answer) as url:
        # A client is otherwise given up before that long.
        proxy = await stage.proxy(url, pool=HANGS, server={"timeouts": {"write": "10m"}})
        client = await stage.client(proxy, receive_buffer=4096)
        await client.send("POST", "/v1/chat/completions", chat())
        await until(lambda: any(_is_stuck(c) for c in proxy.app.listener.connections), "a client that does not read")
        await moves_on(proxy, "b1", 8)
        stage.clock.jump(61)
        await moves_on(proxy, "b1", 3)
        assert proxy.backend("b1").load.in_flight == 1
        assert proxy.backend("b1").status is Status.HEALTHY
        client.leave()
        await proxy.without_clients()


def _is_stuck(connection: Any) -> bool:
    """Neither is the client's side written to nor the engine's read from."""
    exchange = connection._exchange
    return bool(connection.write_paused and exchange and exchange.relay and exchange.relay.connection._paused)


@contextlib.asynccontextmanager
async def served(handler: Any) -> AsyncIterator[str]:
    """A backend that answers everything with `handler`; its URL."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
