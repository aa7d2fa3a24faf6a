"""A lab: one of two backend processes is killed under 200 streams, some of which wait for a place, some
are in their prefill behind a 200 already sent, and some are in the middle of their answer."""

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.harness.client import Answer, Client
from tests.harness.processes import EmulatedProcess
from tests.harness.proxy import Proxy
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

STREAMS = 200
PLACES = 80
TOKENS = 30
PREFILLING = [("X-Emulate-Fault", "slow=40")]
"""The first token takes forty times as long: two seconds in their prefill."""


@dataclass
class Stream:
    """One client's view."""

    number: int
    answer: Answer | None = None

    @property
    def words(self) -> int:
        return 0 if self.answer is None else len(self.answer.text.split())

    async def run(self, client: Client) -> None:
        slow = self.number % 3 == 0
        body = chat(max_tokens=1 if slow else TOKENS)
        headers = [("X-Request-Id", f"s{self.number}"), *(PREFILLING if slow else ())]
        await client.send("POST", CHAT, body, headers)
        self.answer = await client.head()
        await client.rest(self.answer)

    def ended_well(self) -> bool:
        answer = self.answer
        return answer is not None and answer.status == 200 and answer.events[-1] == "[DONE]"

    def ended_with_an_error_event(self) -> bool:
        answer = self.answer
        if answer is None or answer.status != 200:
            return False
        return answer.events[-1]["error"]["code"] == "upstream_lost" and b"[DONE]" not in answer.body


async def phases(http: aiohttp.ClientSession, engine: EmulatedProcess) -> dict[str, int]:
    async with http.get(f"{engine.url}/emulator/state") as response:
        state: dict[str, Any] = await response.json()
        found: dict[str, int] = state["phases"]
        return found


async def test_one_of_two_backends_killed_under_200_streams(stage: Stage) -> None:
    async with AsyncExitStack() as stack:
        options = ("--ttft", "50", "--itl", "25", "--slowdown", "0", "--prefill", "0")
        doomed, other = [
            await stack.enter_async_context(EmulatedProcess("--name", name, *options)) for name in ("doomed", "other")
        ]
        http = await stack.enter_async_context(aiohttp.ClientSession())
        proxy = await stage.proxy(
            doomed,
            other,
            each={"max_concurrency": PLACES},
            pool={"breaker": {"open_for": "60s"}, "health": {"interval": "1s"}},
        )
        streams = [Stream(number) for number in range(STREAMS)]
        clients = [await stage.client(proxy) for _ in streams]
        running = [asyncio.ensure_future(s.run(client)) for s, client in zip(streams, clients, strict=True)]

        async def in_full_swing() -> bool:
            now = await phases(http, doomed)
            waiting = proxy.pool().queue.waiting
            told = sum(stream.words > 0 for stream in streams)
            return now["prefill"] >= 15 and now["decoding"] >= 15 and waiting >= 20 and told >= 15

        await until(in_full_swing, "streams in all phases")
        doomed.signal(signal.SIGKILL)
        await doomed.process.wait()
        await asyncio.wait_for(asyncio.gather(*running), 30.0)

        cut = [stream for stream in streams if not stream.ended_well()]
        assert cut, "nobody was in the middle of an answer"
        for stream in cut:
            assert stream.ended_with_an_error_event(), stream
            # Without a word downstream, another backend would have answered.
            assert stream.words > 0, stream
        for stream in streams:
            if stream not in cut:
                assert stream.words == (1 if stream.number % 3 == 0 else TOKENS)
        saved = [line for line in await proxy.log() if line["retries"]]
        assert len(saved) >= 15
        assert {(line["outcome"], line["backend"]) for line in saved} == {("ok", "b2")}
        await all_moved(stage, proxy)
        assert (await phases(http, other)) == {"waiting": 0, "prefill": 0, "decoding": 0}


async def all_moved(stage: Stage, proxy: Proxy) -> None:
    """From now on the other backend has all the traffic, without a detour."""
    await proxy.at_rest()
    before = proxy.metric("llmproxy_attempts_total", backend="b1")
    answers = await asyncio.gather(*(stage.ask(proxy, chat(max_tokens=2)) for _ in range(20)))
    assert {(answer.status, answer.header("x-llmproxy-backend")) for answer in answers} == {(200, "b2")}
    assert proxy.metric("llmproxy_attempts_total", backend="b1") == before
