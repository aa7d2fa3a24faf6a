"""Streams that wait hear from us: comments behind a head of our own, and then the engine's answer."""

import asyncio
import re
from typing import Any

import anthropic
import openai
import pytest

from tests.harness.client import Client
from tests.harness.patience import (
    EVERY,
    LAST,
    POOL,
    STREAM,
    WAITING,
    WORD,
    Gate,
    begun,
    chunked,
    full,
    sent,
    wait_in_line,
)
from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until


async def test_a_stream_in_line_hears_where_it_stands(stage: Stage) -> None:
    proxy, hog = await full(stage)
    first = await wait_in_line(stage, proxy)
    second = await wait_in_line(stage, proxy)
    stage.clock.jump(EVERY)
    answers = [await client.head() for client in (first, second)]
    assert answers[0].headers == [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("X-Request-Id", "waits"),
        ("Transfer-Encoding", "chunked"),
    ]
    assert await first.chunk(answers[0]) == b": queued position=1\n\n"
    assert await second.chunk(answers[1]) == b": queued position=2\n\n"
    first.leave()
    await until(lambda: proxy.pool().queue.waiting == 1, "one less")
    stage.clock.jump(EVERY)
    assert await second.chunk(answers[1]) == b": queued position=1\n\n"
    assert proxy.metric("llmproxy_heartbeats_total", pool="main") == 3
    hog.leave()
    await second.rest(answers[1])
    assert (len(answers[1].text.split()), answers[1].events[-1]) == (5, "[DONE]")
    assert not answers[1].cut
    # The connection is as good as any.
    assert (await second.ask("POST", CHAT, chat())).header("x-llmproxy-backend") == "b1"


async def test_the_pace_of_the_queue_says_how_long(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, pool=POOL)
    await asyncio.gather(*(stage.ask(proxy, chat()) for _ in range(6)))
    engine.set_fault("hang*1")
    hog = await stage.client(proxy)
    await hog.send("POST", CHAT, chat())
    await until(lambda: engine.in_flight == 1, "a busy engine")
    clients = [await wait_in_line(stage, proxy) for _ in range(2)]
    stage.clock.jump(EVERY)
    for client, told in zip(clients, (rb"position=1 eta=0s", rb"position=2 eta=[1-9]\d?s"), strict=True):
        assert re.fullmatch(rb": queued " + told + rb"\n\n", await client.chunk(await client.head()))


async def test_the_record_says_what_the_client_got(stage: Stage) -> None:
    proxy, hog = await full(stage)
    client = await wait_in_line(stage, proxy)
    answer = await begun(stage, client)
    hog.leave()
    await client.rest(answer)
    record = await proxy.record("waits")
    assert (record["status"], record["outcome"], record["backend"]) == (200, "ok", "b1")
    assert record["ttft_ms"] >= 5000
    assert record.get("error") is None


async def test_whole_answers_and_other_routes_just_wait(stage: Stage) -> None:
    proxy, hog = await full(stage)
    clients = [
        await wait_in_line(stage, proxy, chat(stream=False)),
        await wait_in_line(stage, proxy, {"model": MODEL, "input": "hello", "stream": True}, "/v1/embeddings"),
    ]
    stage.clock.jump(2 * EVERY)
    # The sweep at which a beat would have been has passed when one that is due is heard.
    await begun(stage, await wait_in_line(stage, proxy))
    assert all(not client.reader._buffer for client in clients)  # type: ignore[attr-defined]
    hog.leave()
    for client in clients:
        answer = await client.answer()
        assert (answer.status, answer.header("content-type")) == (200, "application/json")


async def test_it_is_off_by_default(stage: Stage) -> None:
    proxy, _ = await full(stage, pool={})
    client = await wait_in_line(stage, proxy)
    stage.clock.jump(2 * EVERY)
    (x,) = [c._exchange for c in proxy.app.listener.connections if getattr(c._exchange, "id", b"") == b"waits"]
    await until(lambda: proxy.handler._rooms["main"].deadline == 0.0, "a room that is swept")
    assert (x.begun, x.beat) == (False, None)  # type: ignore[union-attr]
    assert not client.reader._buffer  # type: ignore[attr-defined]


async def test_the_head_has_our_own_lines(stage: Stage) -> None:
    tiers = {"free": {"requests_per_minute": 50, "tokens_per_minute": 10_000}}
    server = {"cors": {"origins": ["https://a.test"]}}
    key = {"name": "k", "tier": "free", "value": "secret"}
    proxy, _ = await full(stage, keys=[key], tiers=tiers, server=server)
    lines = [("Authorization", "Bearer secret"), ("Origin", "https://a.test")]
    answer = await begun(stage, await wait_in_line(stage, proxy, headers=lines))
    assert answer.header("x-ratelimit-limit-requests") == "50"
    assert answer.header("access-control-allow-origin") == "https://a.test"


async def test_comments_go_on_until_the_first_token(stage: Stage) -> None:
    gate = Gate()
    proxy, client = await sent(stage, gate)
    answer = await begun(stage, client)
    stage.clock.jump(EVERY)
    assert await client.chunk(answer) == WAITING
    # An engine's hints have no place behind a head.
    gate.open(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + STREAM + chunked(WORD, WORD, LAST))
    await client.rest(answer)
    assert answer.body == WAITING * 2 + WORD * 2 + LAST
    assert not answer.cut
    stage.clock.jump(EVERY)
    assert (await proxy.record("waits"))["outcome"] == "ok"


async def test_no_comment_comes_between_tokens(stage: Stage) -> None:
    asked, said = asyncio.Event(), asyncio.Event()

    async def script(turn: Turn) -> None:
        await asked.wait()
        await turn.say(STREAM)
        await turn.chunk(WORD)
        await said.wait()
        await turn.say(chunked(LAST))

    proxy = await stage.proxy(await stage.scripted(script), pool=POOL)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat())
    await until(lambda: proxy.backend("b1").load.in_flight, "the request")
    answer = await begun(stage, client)
    asked.set()
    assert await client.chunk(answer) == WORD
    stage.clock.jump(2 * EVERY)
    proxy.app._deadlines.sweep(stage.clock())
    said.set()
    await client.rest(answer)
    assert answer.body == WAITING + WORD + LAST


async def test_one_that_does_not_read_is_not_sent_more(stage: Stage) -> None:
    proxy, _ = await full(stage)
    client = await wait_in_line(stage, proxy)
    answer = await begun(stage, client)
    (connection,) = [c for c in proxy.app.listener.connections if getattr(c._exchange, "id", b"") == b"waits"]
    connection.pause_writing()
    for _ in range(3):
        stage.clock.jump(EVERY)
        proxy.app._deadlines.sweep(stage.clock())
    connection.resume_writing()
    assert proxy.metric("llmproxy_heartbeats_total") == 1
    stage.clock.jump(EVERY)
    assert await client.chunk(answer) == b": queued position=1\n\n"
    assert proxy.metric("llmproxy_heartbeats_total") == 2


async def test_a_pipelined_request_waits_behind_one_that_waits(stage: Stage) -> None:
    proxy, hog = await full(stage)
    client = await wait_in_line(stage, proxy)
    await client.send("POST", CHAT, chat(max_tokens=2))
    await client.send("GET", "/health")
    answer = await begun(stage, client)
    hog.leave()
    await client.rest(answer)
    assert answer.events[-1] == "[DONE]"
    second = await client.answer()
    assert (second.header("x-llmproxy-backend"), len(second.text.split())) == ("b1", 2)
    assert (await client.answer()).json == {"status": "ok"}


async def test_old_clients_get_it_up_to_the_close(stage: Stage) -> None:
    proxy, hog = await full(stage)
    client = await wait_in_line(stage, proxy, version="1.0", headers=[("Connection", "keep-alive")])
    stage.clock.jump(EVERY)
    answer = await client.head()
    assert (answer.header("transfer-encoding"), answer.header("connection")) == (None, "close")
    assert await client.reader.readuntil(b"\n\n") == b": queued position=1\n\n"
    hog.leave()
    await client.rest(answer)
    assert (len(answer.text.split()), answer.events[-1]) == (5, "[DONE]")
    # No chunks: all of it is the body.
    assert b"\r\n" not in answer.wire


@pytest.fixture
async def patient(stage: Stage) -> tuple[Proxy, Client]:
    return await full(stage)


async def heard(stage: Stage, proxy: Proxy) -> None:
    await until(lambda: proxy.pool().queue.waiting == 1, "somebody who waits")
    stage.clock.jump(EVERY)
    await until(lambda: proxy.metric("llmproxy_heartbeats_total") > 0, "a heartbeat")


async def test_openais_client_reads_over_them(stage: Stage, patient: tuple[Proxy, Client]) -> None:
    proxy, hog = patient
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
        asking = asyncio.ensure_future(client.chat.completions.create(**chat()))
        await heard(stage, proxy)
        stream = await asking
        hog.leave()
        said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert len("".join(said).split()) == 5


async def test_openais_client_raises_what_is_told_late(stage: Stage, patient: tuple[Proxy, Client]) -> None:
    proxy, _ = patient
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="key", max_retries=0) as client:
        asking = asyncio.ensure_future(client.chat.completions.create(**chat()))
        await heard(stage, proxy)
        stream = await asking
        stage.clock.jump(31)
        with pytest.raises(openai.APIError) as shed:
            await anext(stream)
    assert shed.value.code == "queue_timeout"


async def test_anthropics_client_too(stage: Stage, patient: tuple[Proxy, Client]) -> None:
    proxy, hog = patient
    ask: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 6, "stream": True}
    async with anthropic.AsyncAnthropic(base_url=proxy.url, api_key="key", max_retries=0) as client:
        asking = asyncio.ensure_future(client.messages.create(**ask))
        await heard(stage, proxy)
        hog.leave()
        kinds = [event.type async for event in await asking]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
