"""Tokens are reserved before a request and settled after it: what is missing from a bucket in the end is what was used,
however the request ended. Buckets here refill by one token a minute, so that each can be counted."""

import asyncio
from typing import Any

import pytest

from tests.harness.client import Client
from tests.harness.proxy import Proxy
from tests.harness.scripted import Turn
from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until

FULL = 1_000_000
SECTIONS: dict[str, Any] = {
    "keys": [{"name": "dev", "tier": "counted", "value": "sk-dev"}],
    "tiers": {"counted": {"tokens_per_minute": 1, "burst": {"tokens": FULL}, "budgets": {"tokens_per_month": FULL}}},
}
KEY = [("Authorization", "Bearer sk-dev")]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def used(proxy: Proxy) -> int:
    """What is missing, in the bucket and in the budget alike."""
    store = proxy.handler.limiter.store
    bucket = store._counts.get("t:dev:tpm")
    missing = 0 if bucket is None else FULL - bucket.value
    budget = store._counts.get("t:dev:tokens-month")
    assert (0 if budget is None else budget.value) == missing
    return int(missing)


def reserved_prompt(proxy: Proxy) -> int:
    """What the prompt was taken for: all that was used but the answers."""
    usage = proxy.handler.limiter.usage.view()["dev"]
    return int(usage["prompt_tokens"])


async def sse(turn: Turn, *events: bytes, ends: bool = True) -> None:
    await turn.say(STREAM)
    for event in events:
        await turn.chunk(event)
    if ends:
        await turn.say(b"0\r\n\r\n")


@pytest.mark.parametrize("inject", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_settled_to_what_the_engine_says(stage: Stage, stream: bool, inject: bool) -> None:
    proxy = await stage.proxy(await stage.backend(), pool={"inject_usage": inject}, **SECTIONS)
    options = {"stream_options": {"include_usage": True}} if stream and not inject else {}
    await stage.ask(proxy, chat(stream=stream, max_tokens=7, **options), id="one", headers=KEY)
    record = await proxy.record("one")
    assert record["completion_tokens"] == 7
    assert used(proxy) == record["prompt_tokens"] + 7


async def test_reserved_while_it_runs(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, **SECTIONS)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(max_tokens=100, stream=False), [*KEY, ("X-Emulate-Fault", "hang")])
    await until(lambda: engine.in_flight == 1, "a request under way")
    reserved = used(proxy)
    assert 100 < reserved < 150
    client.leave()
    await proxy.at_rest()
    assert used(proxy) == 0


async def test_counted_by_its_chunks_where_no_engine_tells(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), **SECTIONS)
    answer = await stage.ask(proxy, chat(max_tokens=9), headers=KEY)
    assert "usage" not in str(answer.events[-2])
    assert used(proxy) == 9 + reserved_prompt(proxy)


async def test_cut_by_the_client(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(itl_s=0.002), **SECTIONS)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(max_tokens=5000), KEY)
    answer = await client.head()
    await client.text(answer, 12)
    client.leave(reset=True)
    await proxy.at_rest()
    tokens = used(proxy) - reserved_prompt(proxy)
    assert 12 <= tokens < 1000


async def test_cut_by_the_engine(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, **SECTIONS)
    engine.set_fault("die_after=6")
    answer = await stage.ask(proxy, chat(max_tokens=50), headers=KEY)
    assert "error" in answer.events[-1]
    assert used(proxy) - reserved_prompt(proxy) == 6


async def test_what_is_said_at_the_beginning_is_no_last_word(stage: Stage) -> None:
    """Anthropic's `message_start` has an `output_tokens` of 1; whoever leaves before the end has had more."""
    start = b'data: {"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}\n\n'
    word = b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"word"}}\n\n'

    async def script(turn: Turn) -> None:
        await sse(turn, start, *[word] * 20, ends=False)
        await asyncio.sleep(3600)

    proxy = await stage.proxy(await stage.scripted(script), **SECTIONS)
    client = await stage.client(proxy)
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 500, "stream": True}
    await client.send("POST", "/v1/messages", body, KEY)
    answer = await client.head()
    while answer.body.count(b"text_delta") < 20:
        await client.chunk(answer)
    client.leave()
    await proxy.at_rest()
    assert used(proxy) == 10 + 20


@pytest.mark.parametrize("fault", ["status=400", "status=500", "reset", "die_after=0", "abort_after=0"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_came_to_nothing_costs_nothing(stage: Stage, fault: str, stream: bool) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, **SECTIONS)
    engine.set_fault(fault)
    answer = await stage.ask(proxy, chat(stream=stream), headers=KEY)
    assert answer.status >= 400
    assert used(proxy) == 0


async def test_nor_does_what_nobody_could_take(stage: Stage) -> None:
    engine = await stage.backend(ttft_s=60.0)
    proxy = await stage.proxy(engine, each={"max_concurrency": 1}, pool={"queue": {"max": 1}}, **SECTIONS)
    holder, waiter = await stage.client(proxy), await stage.client(proxy)
    await holder.send("POST", CHAT, chat(), KEY)
    await until(lambda: engine.in_flight == 1, "a busy engine")
    one = used(proxy)
    await waiter.send("POST", CHAT, chat(), KEY)
    await until(lambda: proxy.pool().queue.waiting == 1, "a full queue")
    assert used(proxy) == 2 * one
    shed = await stage.ask(proxy, chat(), headers=KEY)
    assert (shed.status, shed.header("x-llmproxy-error")) == (503, "queue_full")
    assert shed.header("x-ratelimit-remaining-tokens") is not None
    assert used(proxy) == 2 * one
    waiter.leave()
    await until(lambda: proxy.pool().queue.waiting == 0, "nobody waiting")
    assert used(proxy) == one
    holder.leave()
    await proxy.at_rest()
    assert used(proxy) == 0


@pytest.mark.parametrize("fault", ["reset", "die_after=0", "status=500", "status=503"])
async def test_a_failover_is_counted_once(stage: Stage, fault: str) -> None:
    left, right = await stage.backends(2)
    entries = [{"url": left.url, "weight": 1.0}, {"url": right.url, "weight": 0.001}]
    proxy = await stage.proxy(*entries, pool={"policy": "round_robin", "inject_usage": True}, **SECTIONS)
    left.set_fault(fault)
    await stage.ask(proxy, chat(max_tokens=8), id="moved", headers=KEY)
    record = await proxy.record("moved")
    assert (record["attempts"], record["completion_tokens"]) == (2, 8)
    assert used(proxy) == record["prompt_tokens"] + 8
    verdicts = proxy.handler.limiter.verdicts
    assert dict(verdicts) == {("counted", "passed"): 1}


async def test_reading_alone_is_charged_as_reading(stage: Stage) -> None:
    """An OpenAI embedding's usage has no completion_tokens."""

    async def script(turn: Turn) -> None:
        await turn.answer(b'{"object":"list","data":[],"usage":{"prompt_tokens":12,"total_tokens":12}}')

    proxy = await stage.proxy(await stage.scripted(script), **SECTIONS)
    await stage.ask(proxy, {"model": MODEL, "input": "hello"}, "/v1/embeddings", headers=KEY)
    assert used(proxy) == 12


async def test_what_nothing_is_known_of_costs_what_was_reserved(stage: Stage) -> None:
    async def script(turn: Turn) -> None:
        await turn.answer(b'{"choices":[{"message":{"content":"hello"}}]}')

    proxy = await stage.proxy(await stage.scripted(script), **SECTIONS)
    await stage.ask(proxy, chat(stream=False, max_tokens=30), headers=KEY)
    assert used(proxy) == 30 + reserved_prompt(proxy)


async def test_a_debt_is_paid_before_the_next(stage: Stage) -> None:
    """The answer is longer than what was reserved, and than what there is."""
    tiers = {"counted": {"tokens_per_minute": 60, "burst": {"tokens": 300}}}
    proxy = await stage.proxy(await stage.backend(output_tokens=400), **SECTIONS | {"tiers": tiers})
    body = {"model": MODEL, "messages": MESSAGES, "stream": False}
    assert (await stage.ask(proxy, body, headers=KEY)).status == 200
    refused = await stage.ask(proxy, body | {"max_tokens": 1}, headers=KEY)
    assert (refused.status, refused.json["error"]["type"]) == (429, "tokens")
    assert refused.header("x-ratelimit-remaining-tokens") == "0"
    wait_s = int(refused.header("retry-after") or 0)
    assert 100 <= wait_s <= 160
    stage.clock.jump(wait_s - 2)
    assert (await stage.ask(proxy, body | {"max_tokens": 1}, headers=KEY)).status == 429
    stage.clock.jump(2)
    assert (await stage.ask(proxy, body | {"max_tokens": 1}, headers=KEY)).status == 200


async def test_the_estimate_learns(stage: Stage) -> None:
    """256 tokens are reserved for an answer until it is known how long they are."""
    proxy = await stage.proxy(await stage.backend(output_tokens=4), **SECTIONS)
    body = {"model": MODEL, "messages": MESSAGES, "stream": False}
    remaining: list[int] = []
    for _ in range(10):
        before = used(proxy)
        answer = await stage.ask(proxy, body, headers=KEY)
        remaining.append(FULL - before - int(answer.header("x-ratelimit-remaining-tokens") or 0))
    assert remaining[0] > 256
    assert remaining[-1] < 50


async def test_all_choices_are_reserved_for(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, **SECTIONS)
    clients: list[Client] = []
    taken: list[int] = []
    for fields in ({"max_tokens": 50}, {"max_tokens": 50, "n": 3}):
        client = await stage.client(proxy)
        clients.append(client)
        before = used(proxy)
        body = {"model": MODEL, "messages": MESSAGES, "stream": False, **fields}
        await client.send("POST", CHAT, body, [*KEY, ("X-Emulate-Fault", "hang")])
        await until(lambda: engine.in_flight == len(clients), "a request under way")
        taken.append(used(proxy) - before)
    assert taken[1] - taken[0] in (100, 101, 102, 103)
    for client in clients:
        client.leave()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": "7"},
        {"max_tokens": [1]},
        {"max_tokens": 7.5, "n": "2"},
        {"max_tokens": 10**30},
        {"stream": 1},
        {"stream": "true"},
        {"stream_options": "x"},
        {"stream_options": [[]], "stream": True},
        {"store": 3},
        {"previous_response_id": {"a": []}},
    ],
    ids=str,
)
async def test_fields_of_other_types_are_the_engines_to_judge(stage: Stage, fields: dict[str, Any]) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, **SECTIONS)
    body = chat(stream=False, max_tokens=3) | fields
    direct, through = await stage.ask(engine, body), await stage.ask(proxy, body, headers=KEY)
    assert through.status == direct.status
    assert through.header("x-llmproxy-error") is None
    refused = await stage.ask(proxy, body | {"model": 7}, headers=KEY)
    assert (refused.status, refused.header("x-llmproxy-error")) == (400, "invalid_model")


async def test_models_that_nobody_knows_are_remembered_as_one(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), **SECTIONS)
    limiter = proxy.handler.limiter
    await stage.ask(proxy, chat(stream=False, max_tokens=1), headers=KEY)
    known = len(limiter.estimator), len(limiter._plans)
    for number in range(20):
        await stage.ask(proxy, chat(stream=False, max_tokens=1, model=f"invented-{number}"), headers=KEY)
    assert len(limiter.estimator) <= known[0] + 2
    assert len(limiter._plans) <= known[1] + 1
