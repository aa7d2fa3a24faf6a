"""SIGKILL under load: whoever had no token of an answer yet gets all of one, from the other engine."""

import pytest

from llmproxy.core.backend import Status
from tests.engines.asking import (
    CHAT,
    COMPLETIONS,
    GENERATING,
    MESSAGES,
    Asking,
    body_for,
    chat,
    error_in,
    finish_reasons,
    is_finished,
    proxy_over,
)
from tests.engines.vllm_server import Engines, VllmServer
from tests.harness.proxy import Proxy
from tests.harness.stage import Stage
from tests.harness.waiting import until

pytestmark = pytest.mark.engines

STREAMS = 40
"""20 on each engine, 16 of them in its batch and the others waiting for a place in it: fewer than the retry budget's
floor, from which the errors are paid that an engine gives when its process is gone."""
TOKENS = 150


class Load:
    """Streams on both engines, of which `victim` is to die."""

    def __init__(self, proxy: Proxy, victim: VllmServer) -> None:
        self._proxy = proxy
        self._victim = victim
        paths = [CHAT, CHAT, COMPLETIONS, MESSAGES] * (STREAMS // 4)
        self.streams = [Asking(proxy.port, body_for(path, TOKENS, stream=True), path) for path in paths]
        self.whole = [Asking(proxy.port, body_for(path, TOKENS), path) for path in GENERATING]

    async def well_under_way(self) -> None:
        """The victim has streams that have said something, and requests that have not."""

        def mixed() -> bool:
            speaking = sum(asking.backend == self._victim.id and asking.has_token for asking in self.streams)
            return speaking >= 14 and self._proxy.backend(self._victim.id).load.in_flight - speaking >= 4

        await until(mixed, "a mixed load", 60.0)

    async def check(self) -> None:
        """Streams that had said something may end with an error event; everything else is whole."""
        for asking in self.whole:
            answer = await asking.ended()
            assert answer.status == 200
            usage = answer.json["usage"]
            assert usage.get("completion_tokens", usage.get("output_tokens")) == TOKENS
        broken_off = 0
        for asking in self.streams:
            answer = await asking.ended()
            assert (answer.status, answer.cut) == (200, False)
            if error_in(answer) is None:
                assert is_finished(answer)
            else:
                assert asking.backend == self._victim.id
                assert asking.has_token
                assert answer.events[-1].get("error")
                assert finish_reasons(answer) == []
                assert b'stop_reason":"' not in answer.body
                broken_off += 1
        assert broken_off > 0


async def survives(stage: Stage, proxy: Proxy, victim: VllmServer, survivor: VllmServer, load: Load) -> None:
    await load.check()
    assert proxy.metric("llmproxy_retries_total") >= 4
    assert proxy.backend(victim.id).status not in (Status.HEALTHY, Status.HALF_OPEN)
    for _ in range(10):
        assert (await stage.ask(proxy, chat())).header("x-llmproxy-backend") == survivor.id
    await victim.gone()


async def test_the_engine_process_is_killed(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    load = Load(proxy, up.a)
    await load.well_under_way()
    up.a.kill_engine_core()
    await survives(stage, proxy, up.a, up.b, load)


async def test_the_api_server_is_killed(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    load = Load(proxy, up.b)
    await load.well_under_way()
    up.b.kill_api_server()
    await survives(stage, proxy, up.b, up.a, load)
