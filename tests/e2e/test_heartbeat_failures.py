"""What becomes of failures, and of clients that leave, when a stream has had heartbeats and nothing else."""

import asyncio
import json
from typing import Any

import pytest

from llmproxy.core.backend import Status
from llmproxy.pipeline.exchange import Phase
from tests.harness.patience import (
    EVERY,
    LAST,
    POOL,
    ROUTES,
    STREAM,
    WAITING,
    WORD,
    Gate,
    begun,
    chunked,
    full,
    sent,
    wait_in_line,
    whole,
)
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

# -- failures that can be mended ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "reset"),
    [
        (b"", True),
        (STREAM, True),
        (whole("500 Oh", b"{}"), False),
        (b"nonsense", False),
        (STREAM + chunked(b"data: [DONE]\n\n"), False),
    ],
)
async def test_a_failed_attempt_is_tried_elsewhere_behind_the_head(stage: Stage, failure: bytes, reset: bool) -> None:
    gates = Gate(), Gate()
    proxy, client = await sent(stage, *gates, pool={"retry": {"after_crash": 3}})
    answer = await begun(stage, client)
    gates[0].open(failure, reset=reset)
    await until(lambda: gates[1].asked == 1, "another attempt")
    stage.clock.jump(EVERY)
    assert await client.chunk(answer) == WAITING
    gates[1].open(STREAM + chunked(WORD, LAST))
    await client.rest(answer)
    assert answer.body == WAITING * 2 + WORD + LAST
    record = await proxy.record("waits")
    assert (record["attempts"], record["backend"], record["status"]) == (2, "b2", 200)
    assert record.get("error") is None


async def test_commit_after_leaves_streams_with_heartbeats_alone(stage: Stage) -> None:
    gates = Gate(), Gate()
    proxy, client = await sent(stage, *gates, pool={"timeouts": {"commit_after": "7s"}, "retry": {"after_crash": 3}})
    answer = await begun(stage, client)
    gates[0].open(STREAM)
    clients = proxy.app.listener.connections
    await until(lambda: any(getattr(c._exchange, "reader", None) for c in clients), "the engine's head")
    stage.clock.jump(EVERY)
    assert await client.chunk(answer) == WAITING
    stage.clock.jump(300)
    await until(lambda: gates[1].asked == 1, "another attempt")
    gates[1].open(STREAM + chunked(WORD, LAST))
    await client.rest(answer)
    assert answer.events[-1] == "[DONE]"


# -- failures that cannot ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_one_that_is_shed_late_gets_an_error_event(stage: Stage, path: str, body: Any) -> None:
    proxy, _ = await full(stage)
    client = await wait_in_line(stage, proxy, body, path)
    answer = await begun(stage, client)
    stage.clock.jump(31)
    await client.rest(answer)
    assert not answer.cut
    (event,) = answer.events
    if path == "/v1/messages":
        assert b"event: error\ndata: " in answer.body
        assert event["error"]["type"] == "overloaded_error"
    else:
        assert event["error"]["code"] == "queue_timeout"
    record = await proxy.record("waits")
    assert (record["status"], record["error"]) == (200, "queue_timeout")
    assert proxy.metric("llmproxy_shed_total", reason="queue_timeout") == 1
    assert (await client.ask("GET", "/health")).status == 200


async def test_an_old_client_is_told_and_closed_on(stage: Stage) -> None:
    proxy, _ = await full(stage)
    client = await wait_in_line(stage, proxy, version="1.0")
    stage.clock.jump(EVERY)
    answer = await client.head()
    await client.reader.readuntil(b"\n\n")
    stage.clock.jump(31)
    await client.rest(answer)
    assert [event["error"]["code"] for event in answer.events] == ["queue_timeout"]
    assert b"0\r\n\r\n" not in answer.wire


async def test_when_nobody_is_left_the_stream_is_told(stage: Stage) -> None:
    proxy, _ = await full(stage)
    client = await wait_in_line(stage, proxy)
    answer = await begun(stage, client)
    proxy.pool().health.drain(proxy.backend("b1"), stage.clock())
    assert proxy.backend("b1").status is Status.DRAINING
    proxy.handler.room(proxy.pool()).freed()
    await client.rest(answer)
    assert answer.events[0]["error"]["code"] == "no_backend_available"


@pytest.mark.parametrize("in_line", [True, False])
async def test_the_total_time_runs_out(stage: Stage, in_line: bool) -> None:
    timeouts = {"total": "20s"}
    if in_line:
        proxy, _ = await full(stage, pool=POOL | {"timeouts": timeouts})
        client = await wait_in_line(stage, proxy)
    else:
        proxy, client = await sent(stage, Gate(), pool={"timeouts": timeouts})
    answer = await begun(stage, client)
    stage.clock.jump(20)
    await client.rest(answer)
    assert [event["error"]["code"] for event in answer.events] == ["timeout"]


async def test_the_first_byte_is_still_due(stage: Stage) -> None:
    proxy, client = await sent(stage, Gate(), pool={"timeouts": {"first_byte": "12s"}})
    answer = await begun(stage, client)
    stage.clock.jump(EVERY)
    assert await client.chunk(answer) == WAITING
    stage.clock.jump(EVERY)
    await client.rest(answer)
    assert [event["error"]["code"] for event in answer.events] == ["timeout"]
    assert (await proxy.record("waits"))["outcome"] == "first_byte_timeout"


ERROR = {"error": {"message": "no such thing\nhere", "type": "BadRequestError", "param": None, "code": 400}}
NONE: dict[str, Any] = {"error": {}}
SAYINGS: list[tuple[str, bytes, list[Any], str, str]] = [
    ("a 400", whole("400 Bad Request", json.dumps(ERROR, indent=2).encode()), [ERROR], "engine_error", "ok"),
    ("a bare 404", whole("404 No", b'{"detail": "No"}'), [{"error": {"detail": "No"}}], "engine_error", "ok"),
    ("a 500", whole("500 Oh", json.dumps(ERROR).encode()), [ERROR], "engine_error", "server_error"),
    ("a full one", whole("503 No", b'{"error": {}}', more="Retry-After: 1\r\n"), [NONE], "engine_error", "busy"),
    ("a whole answer", whole("200 OK", b'{"id": "x"}'), [{"id": "x"}, "[DONE]"], "", "ok"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "events", "code", "outcome"), [row[1:] for row in SAYINGS], ids=[r[0] for r in SAYINGS]
)
async def test_what_is_no_stream_becomes_an_event(
    stage: Stage, said: bytes, events: list[Any], code: str, outcome: str
) -> None:
    gate = Gate()
    proxy, client = await sent(stage, gate)
    answer = await begun(stage, client)
    gate.open(said)
    await client.rest(answer)
    assert (answer.events, answer.cut) == (events, False)
    assert b"HTTP/1.1" not in answer.body
    record = await proxy.record("waits")
    assert (record["status"], record.get("error") or "", record["outcome"]) == (200, code, outcome)
    assert (await client.ask("GET", "/health")).status == 200


@pytest.mark.parametrize(
    "said",
    [
        whole("200 OK", b"hello", "text/plain"),
        whole("200 OK", b"[1]"),
        whole("200 OK", b'"' + b"x" * (1 << 20) + b'"'),
        whole("400 No", b"<html>", "text/html"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
async def test_what_nobody_could_read_is_an_error(stage: Stage, said: bytes) -> None:
    gate = Gate()
    proxy, client = await sent(stage, gate)
    answer = await begun(stage, client)
    gate.open(said)
    await client.rest(answer)
    assert [event["error"]["code"] for event in answer.events] == ["upstream_failed"]
    assert not answer.cut
    assert (await proxy.record("waits"))["error"] == "engine_error"


async def test_an_engines_error_speaks_the_paths_dialect(stage: Stage) -> None:
    gate = Gate()
    proxy = await stage.proxy(await stage.scripted(gate), pool=POOL)
    client = await stage.client(proxy)
    path, body = ROUTES[3]
    await client.send("POST", path, body)
    await until(lambda: gate.asked == 1, "the request")
    answer = await begun(stage, client)
    gate.open(whole("400 No", json.dumps(ERROR).encode()))
    await client.rest(answer)
    assert answer.body.endswith(b"event: error\ndata: " + json.dumps({"type": "error"} | ERROR).encode() + b"\n\n")


async def test_tokens_of_an_error_behind_a_head_are_given_back(stage: Stage) -> None:
    gate = Gate()
    key = {"name": "k", "tier": "free", "value": "secret"}
    tiers = {"free": {"tokens_per_minute": 10_000, "concurrency": 1}}
    proxy = await stage.proxy(await stage.scripted(gate), pool=POOL, keys=[key], tiers=tiers)
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(max_tokens=9000), [("Authorization", "Bearer secret")])
    await until(lambda: gate.asked == 1, "the request")
    answer = await begun(stage, client)
    gate.open(whole("400 No", json.dumps(ERROR).encode()))
    await client.rest(answer)
    again = await client.ask("POST", CHAT, chat(max_tokens=9000), [("Authorization", "Bearer secret")])
    assert again.status == 400
    assert int(again.header("x-ratelimit-remaining-tokens") or 0) > 900


async def test_a_stream_that_breaks_later_ends_as_any_other(stage: Stage) -> None:
    gate = Gate()
    _, client = await sent(stage, gate)
    answer = await begun(stage, client)
    gate.open(STREAM + chunked(WORD)[:-5], reset=True)
    await client.rest(answer)
    assert (answer.events[-1]["error"]["code"], answer.cut) == ("upstream_lost", False)


async def test_the_proxy_stops_meanwhile(stage: Stage) -> None:
    proxy, _ = await full(stage)
    client = await wait_in_line(stage, proxy)
    answer = await begun(stage, client)
    stopping = asyncio.ensure_future(proxy.app.stop(0.0))
    await client.rest(answer)
    assert answer.events[-1]["error"]["code"]
    assert not answer.cut
    await stopping


# -- leaving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
async def test_leaving_the_line_frees_the_place(stage: Stage, reset: bool) -> None:
    proxy, _ = await full(stage)
    client = await wait_in_line(stage, proxy)
    await begun(stage, client)
    client.leave(reset=reset)
    await until(lambda: proxy.pool().queue.waiting == 0, "nobody waiting")
    record = await proxy.record("waits")
    assert (record["status"], record["outcome"]) == (200, "abandoned")


async def test_leaving_while_the_engine_thinks_frees_the_engine(stage: Stage) -> None:
    gate = Gate()
    proxy, client = await sent(stage, gate)
    await begun(stage, client)
    client.leave()
    await until(lambda: proxy.backend("b1").load.in_flight == 0, "a free backend")
    record = await proxy.record("waits")
    assert (record["status"], record["outcome"]) == (200, "abandoned")


async def test_leaving_in_the_middle_of_the_answer(stage: Stage) -> None:
    gate = Gate()
    proxy, client = await sent(stage, gate)
    answer = await begun(stage, client)
    gate.open(STREAM + chunked(WORD)[:-5])
    assert await client.chunk(answer) == WORD
    client.leave()
    await until(lambda: proxy.backend("b1").load.in_flight == 0, "a free backend")
    record = await proxy.record("waits")
    assert (record["status"], record["outcome"]) == (200, "abandoned")


async def test_leaving_while_it_connects(stage: Stage) -> None:
    deaf = await stage.deaf()
    proxy = await stage.proxy(deaf, pool=POOL | {"timeouts": {"connect": "60s"}})
    await deaf.turn_deaf()
    client = await stage.client(proxy)
    await client.send("POST", CHAT, chat(), [("X-Request-Id", "waits")])

    def connecting() -> bool:
        return any(getattr(c._exchange, "phase", None) is Phase.CONNECTING for c in proxy.app.listener.connections)

    await until(connecting, "a connection that is being made")
    answer = await begun(stage, client)
    assert answer.body == WAITING
    client.leave()
    await until(lambda: not connecting(), "nothing")
    assert (await proxy.record("waits"))["outcome"] == "abandoned"
