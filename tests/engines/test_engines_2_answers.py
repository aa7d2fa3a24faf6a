"""What real engines answer reaches the client as it is, on every route, in every dialect, through both SDKs."""

import asyncio
import re
from collections import Counter
from typing import Any

import pytest

from llmproxy.core.backend import Status
from tests.engines.asking import (
    CHAT,
    COMPLETIONS,
    GENERATING,
    HELLO,
    MESSAGES,
    RESPONSES,
    Asking,
    body_for,
    chat,
    error_in,
    proxy_over,
)
from tests.engines.tap import Tap
from tests.engines.vllm_server import MODEL, Engines
from tests.harness.stage import Stage

pytestmark = pytest.mark.engines

GENERATE = "/inference/v1/generate"
TOKENS_IN = {
    "model": MODEL,
    "token_ids": [6403, 1980, 253, 655],
    "sampling_params": {"max_tokens": 8, "temperature": 0, "ignore_eos": True},
}
WHOLE = {
    **{path: body_for(path) for path in GENERATING},
    **{f"{path}/render": body_for(path) for path in GENERATING},
    f"{CHAT}/batch": chat(messages=[HELLO, HELLO]),
    GENERATE: TOKENS_IN,
    "/tokenize": {"model": MODEL, "prompt": "Once upon a time"},
    "/detokenize": {"model": MODEL, "tokens": [6004, 665]},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": HELLO},
}


def timeless(body: bytes) -> bytes:
    """Without what differs between two answers to one request: times, and ids that the engine draws."""
    body = re.sub(rb'"created(_at)?":\d+', b"", body)
    return re.sub(rb'"(resp|msg)_[0-9a-f]+"', b"", body)


@pytest.mark.parametrize("path", WHOLE)
async def test_a_whole_answer_is_the_one_the_engine_gives(up: Engines, stage: Stage, path: str) -> None:
    proxy = await proxy_over(stage, up.a)
    # Once before, so that both find the prompt in the engine's cache, which `usage` tells.
    await up.a.ask("POST", path, WHOLE[path])
    direct = await up.a.ask("POST", path, WHOLE[path], **{"X-Request-Id": "the-same"})
    through = await stage.ask(proxy, WHOLE[path], path, id="the-same")
    assert direct.status == through.status == 200, direct.body
    assert timeless(through.body) == timeless(direct.body)
    assert through.header("x-llmproxy-backend") == "a"
    assert through.all("x-request-id") == ["the-same"]


EVERY_USAGE = {"include_usage": True, "continuous_usage_stats": True}
STREAMS = {
    **{path: (path, {}) for path in GENERATING},
    "chat, all told": (CHAT, {"stream_options": EVERY_USAGE, "return_token_ids": True, "logprobs": True, "n": 2}),
    "chat, echo": (CHAT, {"echo": True, "add_generation_prompt": False, "stream_interval": 5}),
    "completions, all told": (
        COMPLETIONS,
        {"stream_options": EVERY_USAGE, "return_token_ids": True, "logprobs": 1, "n": 2},
    ),
    # Together with logprobs it makes vLLM fail now and then (a KeyError of its own).
    "completions, echo": (COMPLETIONS, {"echo": True, "stream_interval": 5}),
    "unknown fields": (CHAT, {"cache_salt": "x", "session_id": "y", "priority": 0, "what_is_this": {"model": "no"}}),
    "tokens": (GENERATE, None),
}


@pytest.mark.parametrize(("path", "fields"), STREAMS.values(), ids=STREAMS)
async def test_a_stream_is_the_engines_byte_for_byte(
    up: Engines, stage: Stage, path: str, fields: dict[str, Any] | None
) -> None:
    async with Tap(up.a.port) as tap:
        proxy = await proxy_over(stage, {"url": tap.url, "id": "a"})
        # Sampled, not greedy: a random model repeats one word for ever when it is greedy.
        sampled = {"temperature": 1, "seed": 5}
        if fields is None:
            body = TOKENS_IN | {"stream": True, "sampling_params": sampled | {"max_tokens": 100, "ignore_eos": True}}
        else:
            body = body_for(path, 100, stream=True, **sampled | fields)
        answer = await stage.ask(proxy, body, path, id="tapped")
        assert answer.status == 200
        assert len(answer.events) > 10
        assert error_in(answer) is None
        assert answer.body == tap.answer_to("tapped")


async def test_headers_between_client_and_engine(up: Engines, stage: Stage) -> None:
    """Those the engine reads reach it; the load it tells of in a header reaches who asked for that."""
    sent = {"X-Session-ID": "s-1", "X-Vllm-Priority": "0", "X-data-parallel-rank": "0"}
    async with Tap(up.a.port) as tap:
        proxy = await proxy_over(stage, {"url": tap.url, "id": "a"})
        headers = [*sent.items(), ("endpoint-load-metrics-format", "json")]
        answer = await stage.ask(proxy, chat(), id="with-headers", headers=headers)
        assert answer.status == 200
        assert "kv_cache_usage_perc" in (answer.header("endpoint-load-metrics") or "")
        asked = tap.line_with("with-headers").asked.decode().lower()
        for name, value in sent.items():
            assert f"\r\n{name.lower()}: {value}\r\n" in asked


async def test_a_stream_is_the_same_as_without_the_proxy(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, up.a)
    body = chat(60, stream=True, stream_options={"include_usage": True})
    for _ in range(5):
        direct = await up.a.ask("POST", CHAT, body, **{"X-Request-Id": "the-same"})
        through = await stage.ask(proxy, body, id="the-same")
        # A busy machine makes the engine put two tokens into one event now and then.
        if len(direct.events) == len(through.events):
            break
    assert direct.events[0]["id"] == "chatcmpl-the-same"
    assert timeless(through.body) == timeless(direct.body)
    assert (await proxy.record("the-same"))["completion_tokens"] == 60


async def test_twenty_requests_are_spread_evenly(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    asked = [Asking(proxy.port, chat(150)) for _ in range(20)]
    answers = [await asking.ended() for asking in asked]
    assert Counter(answer.header("x-llmproxy-backend") for answer in answers) == {"a": 10, "b": 10}
    assert {answer.json["usage"]["completion_tokens"] for answer in answers} == {150}


async def test_usage_is_asked_for_and_hidden_again(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, up.a, pool={"inject_usage": True})
    answer = await stage.ask(proxy, chat(12, stream=True), id="counted")
    assert b'"usage"' not in answer.body
    assert answer.events[-1] == "[DONE]"
    record = await proxy.record("counted")
    assert (record["completion_tokens"], record["tokens_source"]) == (12, "usage")
    asked_for = await stage.ask(proxy, chat(12, stream=True, stream_options={"include_usage": True}))
    assert asked_for.events[-2]["usage"]["completion_tokens"] == 12


async def test_an_alias_reaches_the_engine_under_its_real_name(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, up.a, models={"gpt-4o": {"pool": "main", "rewrite": MODEL}})
    assert (await stage.ask(proxy, chat(model="gpt-4o"))).json["model"] == MODEL
    unknown = await stage.ask(proxy, chat(model="other"))
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    listed = (await stage.ask(proxy, path="/v1/models")).json
    assert [model["id"] for model in listed["data"]] == ["gpt-4o"]


async def test_the_engines_own_errors_pass_as_they_are(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    for path, body, status in (
        (CHAT, chat(model="other"), 404),
        (MESSAGES, body_for(MESSAGES, model="other"), 404),
        (CHAT, chat(100_000), 400),
        (CHAT, chat(messages="not a list"), 400),
    ):
        direct = await up.a.ask("POST", path, body)
        through = await stage.ask(proxy, body, path)
        assert direct.status == through.status == status
        assert through.body == direct.body
        assert through.header("x-llmproxy-error") is None
    assert proxy.metric("llmproxy_retries_total") == 0


LATE_MISTAKES = {
    CHAT: {"logit_bias": {"9999999": 1}},
    COMPLETIONS: {"structured_outputs": {"regex": "("}},
    MESSAGES: {"output_config": {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}}},
}
"""Mistakes of a client that the engine finds only once it has opened the stream."""


@pytest.mark.parametrize("path", LATE_MISTAKES)
async def test_a_clients_mistake_found_late_is_nobodys_failure(up: Engines, stage: Stage, path: str) -> None:
    proxy = await proxy_over(stage, *up.both)
    body = body_for(path, stream=True, **LATE_MISTAKES[path])
    direct = await up.a.ask("POST", path, body)
    assert direct.status == 200
    assert error_in(direct) is not None
    for _ in range(12):
        through = await stage.ask(proxy, body, path)
        assert (through.status, through.body) == (200, direct.body)
    assert proxy.metric("llmproxy_retries_total") == 0
    assert {backend.status for backend in proxy.pool().backends} == {Status.HEALTHY}


async def test_a_clients_mistake_found_late_cuts_a_response(up: Engines, stage: Stage) -> None:
    """Where it should say what is wrong, vLLM drops the connection, and nobody can tell that from a crash. When this
    fails, vLLM has learnt to say so."""
    body = body_for(RESPONSES, stream=True, logit_bias={"9999999": 1})
    direct = await up.a.ask("POST", RESPONSES, body)
    assert (direct.status, direct.cut, error_in(direct)) == (200, True, None)
    proxy = await proxy_over(stage, *up.both)
    through = await stage.ask(proxy, body, RESPONSES)
    assert (through.status, through.json["error"]["code"]) == (502, "upstream_lost")


async def test_engine_control_is_closed_and_the_key_is_the_pools(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, up.a)
    closed = (
        "/reset_prefix_cache",
        "/collective_rpc",
        "/pause",
        "/inference/v1/abort_requests",
        "/server_info",
        "/load",
    )
    for path in ("/sleep", "/%73leep", "//sleep", "/v1/../sleep", *closed):
        answer = await stage.ask(proxy, {}, path)
        assert (answer.status, answer.header("x-llmproxy-error")) == (403, "route_not_allowed"), path
    assert (await up.a.ask("GET", "/is_sleeping")).json == {"is_sleeping": False}
    keyless = await proxy_over(stage, up.a, pool={"upstream_key": ""})
    refused = await stage.ask(keyless, chat())
    assert (refused.status, refused.json) == (401, {"error": "Unauthorized"})


async def test_a_stored_response_is_found_on_the_backend_that_made_it(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    made = [await stage.ask(proxy, body_for(RESPONSES, store=True), RESPONSES) for _ in range(4)]
    assert {answer.header("x-llmproxy-backend") for answer in made} == {"a", "b"}
    for answer in made:
        path = f"{RESPONSES}/{answer.json['id']}"
        found = await asyncio.gather(*(stage.ask(proxy, path=path) for _ in range(3)))
        assert [other.status for other in found] == [200, 200, 200]
        assert {other.header("x-llmproxy-backend") for other in found} == {answer.header("x-llmproxy-backend")}


async def test_a_response_made_in_the_background_is_found_and_cancelled_where_it_is(up: Engines, stage: Stage) -> None:
    proxy = await proxy_over(stage, *up.both)
    body = body_for(RESPONSES, up.endless, store=True, background=True)
    made = await stage.ask(proxy, body, RESPONSES)
    assert (made.status, made.json["status"]) == (200, "queued")
    maker = next(server for server in up.both if server.id == made.header("x-llmproxy-backend"))
    path = f"{RESPONSES}/{made.json['id']}"
    try:
        await maker.has_running(1)
        for _ in range(3):
            assert (await stage.ask(proxy, path=path)).json["status"] in ("queued", "in_progress")
        cancelled = await stage.ask(proxy, path=f"{path}/cancel", method="POST")
        assert (cancelled.json["status"], cancelled.header("x-llmproxy-backend")) == ("cancelled", maker.id)
        await maker.has_running(0)
        assert (await stage.ask(proxy, path=path)).json["status"] == "cancelled"
    finally:
        await maker.ask("POST", f"{path}/cancel")
