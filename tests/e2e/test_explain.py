"""Why a backend was chosen: told with an answer, counted, and foretold by the admin API."""

import json
from typing import Any

import aiohttp

from tests.harness.client import Answer
from tests.harness.proxy import Proxy
from tests.harness.stage import CHAT, MODEL, Stage, chat
from tests.harness.waiting import until

TOKEN = "known to admins only"
DEBUG = ("X-LLMProxy-Debug", "route")
OPEN = {"server": {"debug_headers": True}}


def conversation(name: str, turns: int = 1) -> dict[str, Any]:
    text = "The quick brown fox jumps over the lazy dog. " * 400
    messages = [{"role": "user", "content": f"{name} {number}: {text}"} for number in range(turns)]
    return {"model": MODEL, "stream": True, "max_tokens": 2, "messages": messages}


def told(answer: Answer) -> Any:
    values = answer.all("x-llmproxy-route")
    assert len(values) == 1, answer.headers
    return json.loads(values[0])


async def foretold(proxy: Proxy, body: Any = None, query: str = "", pool: str = "main") -> Any:
    """What the admin API says."""
    url = f"{proxy.admin_url}/admin/pools/{pool}/explain{query}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    method = "GET" if body is None else "POST"
    async with aiohttp.ClientSession(headers=headers) as http, http.request(method, url, json=body) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_an_answer_says_why_it_came_from_where_it_came_from(stage: Stage) -> None:
    proxy = await stage.proxy(*await stage.backends(3), pool={"policy": "expected_cost"}, **OPEN)
    first = await stage.ask(proxy, conversation("a"), headers=[DEBUG])
    again = await stage.ask(proxy, conversation("a", 2), headers=[DEBUG])
    for answer in (first, again):
        said = told(answer)
        assert (answer.status, said["pool"], said["policy"]) == (200, "main", "expected_cost")
        assert said["pick"] == answer.header("x-llmproxy-backend") == said["best"][0]["backend"]
        assert said["candidates"] == len(said["best"]) == 3
    assert told(first)["best"][0]["cached_tokens"] == 0
    assert told(again)["reason"] == "prefix"
    best, other, _ = told(again)["best"]
    assert best["cached_tokens"] > 0 == other["cached_tokens"]
    assert best["cost_ms"] < other["cost_ms"]


async def test_events_are_untouched_and_whole_answers_have_it_too(stage: Stage) -> None:
    proxy = await stage.proxy(await stage.backend(), **OPEN)
    stream = await stage.ask(proxy, chat(max_tokens=3), headers=[DEBUG])
    whole = await stage.ask(proxy, chat(max_tokens=3, stream=False), headers=[DEBUG])
    assert told(stream)["best"] == [{"backend": "b1", "in_flight": 0, "weight": 1.0}]
    assert (told(whole)["policy"], told(whole)["reason"]) == ("least_connections", None)
    assert len(stream.text.split()) == 3
    assert whole.json["usage"]["completion_tokens"] == 3


async def test_nobody_is_told_who_does_not_ask_or_may_not_know(stage: Stage) -> None:
    engines = await stage.backends(2)
    admin = {"token": TOKEN}
    opened = await stage.proxy(*engines, **OPEN)
    closed = await stage.proxy(*engines, admin=admin)
    for proxy, headers in (
        (opened, []),
        (opened, [("X-LLMProxy-Debug", "everything")]),
        (closed, [DEBUG]),
        (closed, [DEBUG, ("X-LLMProxy-Admin-Token", TOKEN[:-1])]),
        (closed, [("X-LLMProxy-Admin-Token", TOKEN)]),
    ):
        answer = await stage.ask(proxy, chat(), headers=headers)
        assert answer.status == 200
        assert answer.all("x-llmproxy-route") == []
    answer = await stage.ask(closed, chat(), headers=[DEBUG, ("X-LLMProxy-Admin-Token", TOKEN)])
    assert told(answer)["pick"] in ("b1", "b2")


async def test_the_token_reaches_neither_engine_nor_log(stage: Stage) -> None:
    async def answers(turn: Any) -> None:
        # An engine's own word on the matter is not the proxy's.
        await turn.say(b"HTTP/1.1 200 OK\r\nX-LLMProxy-Route: invented\r\nContent-Length: 2\r\n\r\n{}")

    engine = await stage.scripted(answers)
    proxy = await stage.proxy(engine, admin={"token": TOKEN}, pool={"health": {"interval": "1h"}}, healthy=False)
    await until(lambda: proxy.backend("b1").status.value == "healthy", "a healthy backend")
    asking = [DEBUG, ("X-LLMProxy-Admin-Token", TOKEN)]
    answer = await stage.ask(proxy, chat(stream=False), headers=asking, id="one")
    assert told(answer)["pick"] == "b1"
    plain = await stage.ask(proxy, chat(stream=False))
    assert plain.all("x-llmproxy-route") == []
    seen = [turn for turn in engine.turns if turn.line.startswith("POST")]
    assert len(seen) == 2
    assert not any(turn.header("x-llmproxy-admin-token") or turn.header("x-llmproxy-debug") for turn in seen)
    assert TOKEN not in json.dumps(await proxy.record("one"))


async def test_the_last_attempt_is_explained_and_so_is_a_failure(stage: Stage) -> None:
    engines = await stage.backends(2)
    proxy = await stage.proxy(*engines, pool={"policy": "expected_cost"}, **OPEN)
    engines[0].set_fault("status=500")
    answers = [await stage.ask(proxy, conversation(str(number)), headers=[DEBUG]) for number in range(6)]
    retried = [told(answer) for answer in answers if told(answer)["attempt"] == 2]
    assert retried
    assert all((said["pick"], said["candidates"]) == ("b2", 1) for said in retried)
    engines[1].set_fault("reset")
    answer = await stage.ask(proxy, conversation("x"), headers=[DEBUG])
    assert answer.status >= 500
    assert told(answer)["attempt"] >= 1


async def test_decisions_are_counted_by_their_reason(stage: Stage) -> None:
    proxy = await stage.proxy(*await stage.backends(2), pool={"policy": "expected_cost"})
    for _ in range(3):
        assert (await stage.ask(proxy, conversation("a"))).status == 200
    counts = {
        reason: proxy.metric("llmproxy_routing_decisions_total", pool="main", reason=reason)
        for reason in ("tie", "prefix", "load")
    }
    assert counts == {"tie": 1, "prefix": 2, "load": 0}
    other = await stage.proxy(await stage.backend())
    await stage.ask(other, chat())
    assert other.metric("llmproxy_routing_decisions_total") == 0


async def test_the_admin_api_foretells_where_a_prompt_goes_and_changes_nothing(stage: Stage) -> None:
    engines = await stage.backends(3)
    proxy = await stage.proxy(*engines, pool={"policy": "expected_cost"}, admin={"token": TOKEN})
    homes = {}
    for name in ("a", "b", "c"):
        homes[name] = (await stage.ask(proxy, conversation(name), path=CHAT)).header("x-llmproxy-backend")
    for name, home in homes.items():
        said = await foretold(proxy, conversation(name, 2))
        assert said == await foretold(proxy, conversation(name, 2))
        assert (said["pick"], said["reason"], said["model"]) == (home, "prefix", MODEL)
        assert said["candidates"][0]["backend"] == home
        assert said["candidates"][0]["cached_tokens"] > 4000
        assert said["left_out"] == []
    assert proxy.backend("b1").load.in_flight == 0
    assert proxy.metric("llmproxy_routing_decisions_total") == 3


async def test_without_a_prompt_it_says_how_things_stand(stage: Stage) -> None:
    engines = await stage.backends(3)
    policies = {"policy": "expected_cost"}
    proxy = await stage.proxy(*engines, each={"max_concurrency": 1}, pool=policies, admin={"token": TOKEN})
    client, _ = await stage.streaming(proxy, chat(max_tokens=10_000))
    busy = next(backend.id for backend in proxy.pool().backends if backend.load.in_flight)
    drained = "b1" if busy != "b1" else "b2"
    proxy.pool().health.drain(proxy.backend(drained), proxy.app._clock())
    said = await foretold(proxy, query="?model=m&prompt_bytes=40000")
    assert {row["backend"]: row["why"] for row in said["left_out"]} == {busy: "full", drained: "draining"}
    assert said["candidates"][0]["uncached_tokens"] == 10_000
    assert (said["model"], said["prompt_bytes"], len(said["candidates"])) == ("m", 40_000, 1)
    client.leave()


async def test_a_policy_that_cannot_explain_itself(stage: Stage) -> None:
    proxy = await stage.proxy(*await stage.backends(2), pool={"policy": "round_robin"}, admin={"token": TOKEN})
    said = await foretold(proxy, chat())
    assert (said["policy"], said["pick"], said["reason"]) == ("round_robin", None, None)
    assert [(row["backend"], row["in_flight"], row["weight"]) for row in said["candidates"]] == [
        ("b1", 0, 1.0),
        ("b2", 0, 1.0),
    ]


async def test_requests_for_an_adapter_go_where_it_is(stage: Stage) -> None:
    plain = await stage.backend(models=(MODEL,))
    adapted = await stage.backend(models=(MODEL, "sql"))
    quick = {"signals": {"interval": "100ms", "timeout": "90ms", "max_age": "1000s"}}
    pools = quick | {"policy": "expected_cost"}
    models = {MODEL: {"pool": "main"}, "sql": {"pool": "main"}, "alias": {"pool": "main", "rewrite": "sql"}}
    proxy = await stage.proxy(plain, adapted, pool=pools, models=models)

    def known() -> bool:
        gauges = [backend.gauges for backend in proxy.pool().backends]
        return all(one is not None and one.models for one in gauges)

    await until(known, "what the backends serve")
    served = {
        name: {(await stage.ask(proxy, chat() | {"model": name})).header("x-llmproxy-backend") for _ in range(20)}
        for name in models
    }
    assert served == {MODEL: {"b1", "b2"}, "sql": {"b2"}, "alias": {"b2"}}
