"""An engine that loads refuses connections; that is no failure, and no request goes there until it answers."""

import asyncio

import pytest

from llmproxy.core.backend import Status
from tests.engines.asking import chat, proxy_over
from tests.engines.vllm_server import START_S, Engines
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines


async def test_no_request_goes_to_an_engine_that_loads(engines: Engines, stage: Stage) -> None:
    for server in engines.both:
        server.start()
    proxy = await proxy_over(stage, *engines.both, healthy=False)
    backends = proxy.pool().backends
    await until(lambda: all(backend.status is Status.LOADING for backend in backends), "two loading backends")
    answered = 0
    async with asyncio.timeout(START_S):
        while any(backend.status is Status.LOADING for backend in backends):
            answer = await stage.ask(proxy, chat())
            ready = [backend.id for backend in backends if backend.status is Status.HEALTHY]
            if answer.status == 503:
                assert answer.header("x-llmproxy-error") == "no_backend_available"
                assert int(answer.header("retry-after") or 0) > 0
            else:
                assert answer.status == 200
                assert answer.header("x-llmproxy-backend") in ready
                answered += 1
            await asyncio.sleep(0.2)
    assert {backend.status for backend in backends} == {Status.HEALTHY}
    assert (await stage.ask(proxy, chat())).status == 200
    assert (
        proxy.metric("llmproxy_attempts_total") == proxy.metric("llmproxy_attempts_total", outcome="ok") == answered + 1
    )
    for server in engines.both:
        assert await server.health() == 200
