"""Which paths pass, which are the proxy's own, which are closed, and where each goes."""

from typing import Any

import pytest

from tests.harness.stage import CHAT, MESSAGES, MODEL, Stage, chat
from tests.harness.waiting import until

PASSING: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat(stream=False)),
    ("/v1/completions", {"prompt": "hello", "max_tokens": 3}),
    ("/v1/completions", {"prompt": "hello", "max_tokens": 3, "stream": True}),
    ("/v1/responses", {"input": "hello"}),
    ("/v1/responses", {"input": "hello", "stream": True}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 3}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 3, "stream": True}),
    ("/v1/messages/count_tokens", {"messages": MESSAGES}),
    ("/v1/embeddings", {"input": ["one", "two"], "dimensions": 4}),
    ("/v1/score", {"text_1": "a", "text_2": ["b"]}),
    ("/score", {"text_1": "a", "text_2": ["b"]}),
    ("/v1/rerank", {"query": "a", "documents": ["b", "c"]}),
    ("/v2/rerank", {"query": "a", "documents": ["b", "c"]}),
    ("/rerank", {"query": "a", "documents": ["b", "c"]}),
    ("/pooling", {"input": "a"}),
    ("/classify", {"input": "a"}),
    ("/tokenize", {"prompt": "a"}),
    ("/detokenize", {"tokens": [97]}),
]


@pytest.mark.parametrize(("path", "fields"), PASSING, ids=[f"{path} {len(body)}" for path, body in PASSING])
async def test_the_engines_routes_pass(stage: Stage, path: str, fields: dict[str, Any]) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, models={MODEL: {"pool": "main"}})
    body = {"model": MODEL} | fields
    through, direct = await stage.ask(proxy, body, path), await stage.ask(engine, body, path)
    assert through.status == direct.status == 200
    assert through.header("content-type") == direct.header("content-type")
    assert len(through.body) == len(direct.body)
    assert not through.cut
    assert proxy.metric("llmproxy_requests_total", model=MODEL, backend="b1", status="200") == 1


async def test_the_engines_own_errors_pass(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    body = chat(stream=False, max_tokens=-1)
    through, direct = await stage.ask(proxy, body), await stage.ask(engine, body)
    assert (through.status, through.body) == (direct.status, direct.body) == (400, through.body)
    assert through.header("x-llmproxy-error") is None
    assert through.header("x-llmproxy-backend") == "b1"
    unknown = await stage.ask(proxy, {"model": MODEL}, "/v1/no/such/thing")
    assert (unknown.status, unknown.header("x-llmproxy-error")) == (404, None)


# -- models ------------------------------------------------------------------------------------------------------------


async def test_configured_models_are_listed(stage: Stage) -> None:
    engine = await stage.backend()
    models = {name: {"pool": "main", "rewrite": MODEL} for name in ("small", "org/large")}
    proxy = await stage.proxy(engine, models=models)
    listed = (await stage.ask(proxy, path="/v1/models")).json
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["small", "org/large"]
    assert all(card["object"] == "model" and card["created"] > 0 for card in listed["data"])
    assert (await stage.ask(proxy, path="/v1/models/org/large")).json["id"] == "org/large"
    assert (await stage.ask(proxy, path="/v1/models/org%2Flarge")).json["id"] == "org/large"
    missing = await stage.ask(proxy, path="/v1/models/huge")
    assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")
    head = await stage.ask(proxy, path="/v1/models", method="HEAD")
    assert (head.status, int(head.header("content-length") or 0) > 0, head.body) == (200, True, b"")
    wrong = await stage.ask(proxy, {}, "/v1/models")
    assert (wrong.status, wrong.header("x-llmproxy-error")) == (405, "method_not_allowed")
    assert wrong.header("allow") == "GET, HEAD"


async def test_without_configured_models_it_is_what_the_backends_serve(stage: Stage) -> None:
    left, right = await stage.backend(models=("a", "b")), await stage.backend(models=("b", "c"))
    proxy = await stage.proxy(left, right)

    async def both() -> bool:
        listed = (await stage.ask(proxy, path="/v1/models")).json["data"]
        return [card["id"] for card in listed] == ["a", "b", "c"]

    await until(both, "the union of both backends' models")
    assert (await stage.ask(proxy, path="/v1/models/c")).json["id"] == "c"


async def test_models_choose_the_pool(stage: Stage) -> None:
    one, two = await stage.backend(), await stage.backend()
    pools = {"other": {"backends": [{"url": two.url, "id": "other-1"}]}}
    models = {
        "first": {"pool": "main", "rewrite": MODEL},
        "second": {"pool": "other", "rewrite": MODEL},
    }
    proxy = await stage.proxy(one, pools=pools, models=models)
    for name, backend in (("first", "b1"), ("second", "other-1")):
        answer = await stage.ask(proxy, chat(stream=False, max_tokens=2) | {"model": name})
        assert (answer.status, answer.header("x-llmproxy-backend")) == (200, backend)
    assert (one.received, two.received) == (1, 1)
    unknown = await stage.ask(proxy, chat() | {"model": "third"}, id="unknown")
    assert unknown.status == 404
    assert unknown.json["error"] == {
        "message": "The model `third` does not exist.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert unknown.header("x-llmproxy-error") == "model_not_found"
    assert unknown.header("x-request-id") == "unknown"
    assert (await proxy.record("unknown"))["error"] == "model_not_found"
    nameless = await stage.ask(proxy, {"messages": MESSAGES})
    assert (nameless.status, nameless.json["error"]["code"]) == (400, "missing_model")


async def test_invented_models_do_not_become_labels(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, models={MODEL: {"pool": "main"}})
    for number in range(5):
        assert (await stage.ask(proxy, chat() | {"model": f"invented-{number}"})).status == 404
    assert (
        proxy.metric("llmproxy_requests_total", model="other") + proxy.metric("llmproxy_requests_total", model="none")
        == 5
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"", "invalid_json"),
        (b'{"model": 7}', "invalid_model"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"model": "emulated", "\xff": "\\u0041"', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
    ],
)
async def test_bodies_that_cannot_be_routed(stage: Stage, body: bytes, code: str) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, models={MODEL: {"pool": "main"}})
    answer = await stage.ask(proxy, body, headers=[("Content-Type", "application/json")])
    assert (answer.status, answer.json["error"]["code"], answer.header("x-llmproxy-error")) == (400, code, code)
    assert engine.received == 0


# -- dialects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_errors_under_messages_are_anthropics(stage: Stage, path: str) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, models={MODEL: {"pool": "main"}})
    answer = await stage.ask(proxy, {"model": "third", "messages": MESSAGES, "max_tokens": 3}, path)
    assert answer.status == 404
    assert answer.json == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "The model `third` does not exist."},
    }
    broken = await stage.ask(proxy, b"{", path, headers=[("Content-Type", "application/json")])
    assert (broken.status, broken.json["error"]["type"]) == (400, "invalid_request_error")


# -- closed routes -----------------------------------------------------------------------------------------------------

CONTROL = [
    "/sleep",
    "/sleep?level=1",
    "/%73leep",
    "//sleep",
    "/./sleep",
    "/v1/../sleep",
    "/sleep/",
    "/%2e/sleep",
    "/wake_up",
    "/reset_prefix_cache",
    "/collective_rpc",
    "/start_profile",
    "/v1/load_lora_adapter",
    "/v1//load_lora_adapter",
    "/v1/unload%5Flora_adapter",
    "/inference/v1/abort_requests",
    "/metrics",
]


@pytest.mark.parametrize("path", CONTROL)
async def test_engine_control_is_closed(stage: Stage, path: str) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    answer = await stage.ask(proxy, {}, path)
    assert (answer.status, answer.json["error"]["code"]) == (403, "route_not_allowed")
    assert not [request for request in engine.requests if request.method == "POST"]


async def test_a_route_for_all_takes_what_nothing_else_claims(stage: Stage) -> None:
    one, other = await stage.backend(), await stage.backend()
    proxy = await stage.proxy(
        one,
        pools={"rest": {"backends": [{"url": other.url, "id": "r1"}]}},
        models={"m": {"pool": "main", "rewrite": MODEL}},
        routes=[{"path": "/", "pool": "rest"}],
    )
    # What no proxy knows: the engine's own answer.
    answer = await stage.ask(proxy, path="/version")
    assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "r1")
    assert (await stage.ask(proxy, path="/no/such/thing")).header("x-llmproxy-backend") == "r1"
    # Models decide first; a request without one is for all.
    named = await stage.ask(proxy, chat(stream=False, max_tokens=1) | {"model": "m"})
    assert (named.status, named.header("x-llmproxy-backend")) == (200, "b1")
    nameless = await stage.ask(proxy, {"messages": MESSAGES, "max_tokens": 1})
    assert nameless.header("x-llmproxy-backend") == "r1"
    unknown = await stage.ask(proxy, chat() | {"model": MODEL})
    assert (unknown.status, unknown.header("x-llmproxy-error")) == (404, "model_not_found")
    # What the proxy answers itself, and what is closed, stay so.
    assert [card["id"] for card in (await stage.ask(proxy, path="/v1/models")).json["data"]] == ["m"]
    for path in ("/sleep", "/metrics", "/metrics/x"):
        assert (await stage.ask(proxy, {}, path)).header("x-llmproxy-error") == "route_not_allowed"


async def test_a_route_keeps_what_the_proxy_knows_of_a_path(stage: Stage) -> None:
    """An inference route that goes elsewhere is still one: its body is read, and it is tried again."""
    engines = await stage.backends(2)
    entries = [{"url": engine.url, "id": f"r{number}"} for number, engine in enumerate(engines, 1)]
    proxy = await stage.proxy(
        await stage.backend(), pools={"r": {"backends": entries}}, routes=[{"path": "/v1/chat", "pool": "r"}]
    )
    engines[0].set_fault("status=500")
    for number in range(4):
        answer = await stage.ask(proxy, chat(max_tokens=2), id=f"a{number}")
        assert (answer.status, answer.header("x-llmproxy-backend")) == (200, "r2")
    line = await proxy.record("a0")
    assert (line["model"], line["stream"]) == (MODEL, True)


async def test_closed_routes_can_be_opened_one_by_one(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server={"allow_routes": ["/reset_prefix_cache"]})
    assert (await stage.ask(proxy, {}, "/reset_prefix_cache")).status == 200
    assert (await stage.ask(proxy, {}, "/sleep")).status == 403


@pytest.mark.parametrize("path", ["/", "/docs", "/v1", "/admin/pools", "/emulator/state", "/v10/chat"])
async def test_other_paths_are_not_found(stage: Stage, path: str) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    answer = await stage.ask(proxy, path=path)
    assert (answer.status, answer.json["error"]["code"]) == (404, "route_not_found")


@pytest.mark.parametrize("path", ["/v1/a%00b", "/v1/a\\b", "/../etc/passwd", "/v1/a%0d%0ab", "/v1/%2e%2e/%2e%2e/x"])
async def test_paths_that_could_be_read_in_two_ways(stage: Stage, path: str) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    answer = await stage.ask(proxy, path=path)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_target")


async def test_other_prefixes_go_to_their_pool(stage: Stage) -> None:
    one, two = await stage.backend(), await stage.backend()
    pools = {"vectors": {"backends": [{"url": two.url, "id": "v1"}]}}
    routes = [{"path": "/retrieve", "pool": "vectors"}, {"path": "/retrieve/deep", "pool": "main"}]
    proxy = await stage.proxy(one, pools=pools, routes=routes, models={MODEL: {"pool": "main"}})
    for path, backend in (
        ("/retrieve", "v1"),
        ("/retrieve/x?y", "v1"),
        ("/retrieve/deep", "b1"),
        ("/retrieve/deep/er", "b1"),
        ("/retrieve/deeper", "v1"),
    ):
        assert (await stage.ask(proxy, path=path)).header("x-llmproxy-backend") == backend, path
    assert (await stage.ask(proxy, path="/retrieved")).header("x-llmproxy-error") == "route_not_found"


# -- stored responses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stored_response_is_found_where_it_was_made(stage: Stage, stream: bool) -> None:
    fleet = await stage.backends(3)
    proxy = await stage.proxy(*fleet, pool={"policy": "round_robin"})
    made: dict[str, str] = {}
    for _ in range(6):
        answer = await stage.ask(proxy, {"model": MODEL, "input": "hello", "stream": stream}, "/v1/responses")
        id = answer.events[0]["response"]["id"] if stream else answer.json["id"]
        made[id] = answer.header("x-llmproxy-backend") or ""
    assert set(made.values()) == {"b1", "b2", "b3"}
    for id, backend in made.items():
        found = await stage.ask(proxy, path=f"/v1/responses/{id}")
        assert (found.status, found.header("x-llmproxy-backend"), found.json["id"]) == (200, backend, id)
        cancelled = await stage.ask(proxy, {}, f"/v1/responses/{id}/cancel")
        assert cancelled.header("x-llmproxy-backend") == backend
        body = {"model": MODEL, "input": "more", "previous_response_id": id}
        assert (await stage.ask(proxy, body, "/v1/responses")).header("x-llmproxy-backend") == backend
    assert (await stage.ask(proxy, path="/v1/responses/resp_unknown")).status == 404


async def test_a_stored_response_is_found_in_the_pool_that_made_it(stage: Stage) -> None:
    fleet = await stage.backends(4)
    chat_pool, rest = fleet[:2], [{"url": engine.url, "id": f"r{i}"} for i, engine in enumerate(fleet[2:])]
    proxy = await stage.proxy(
        *chat_pool,
        pool={"policy": "round_robin"},
        pools={"rest": {"backends": rest, "policy": "round_robin"}},
        models={MODEL: {"pool": "main"}, "alias": {"pool": "rest", "rewrite": MODEL}},
    )
    makers = set()
    for model in (MODEL, "alias", MODEL, "alias"):
        made = await stage.ask(proxy, {"model": model, "input": "hello"}, "/v1/responses")
        maker, path = made.header("x-llmproxy-backend"), f"/v1/responses/{made.json['id']}"
        makers.add(maker)
        found = await stage.ask(proxy, path=path)
        assert (found.status, found.header("x-llmproxy-backend")) == (200, maker)
        assert (await stage.ask(proxy, {}, path + "/cancel")).header("x-llmproxy-backend") == maker
    assert makers == {"b1", "b2", "r0", "r1"}
    unknown = await stage.ask(proxy, path="/v1/responses/resp_unknown")
    assert (unknown.status, unknown.header("x-llmproxy-error")) == (404, "response_not_found")


# -- browsers ----------------------------------------------------------------------------------------------------------

ORIGIN = [("Origin", "https://chat.example.com")]
PREFLIGHT = [*ORIGIN, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-a, x-b")]


async def test_browsers_of_other_origins_are_let_in_when_configured(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, server={"cors": {"origins": ["https://chat.example.com"], "max_age": "60s"}})
    asked = await stage.ask(proxy, path=CHAT, method="OPTIONS", headers=PREFLIGHT)
    assert asked.status == 204
    assert asked.header("access-control-allow-origin") == "https://chat.example.com"
    assert "POST" in (asked.header("access-control-allow-methods") or "")
    assert asked.header("access-control-allow-headers") == "x-a, x-b"
    assert asked.header("access-control-max-age") == "60"
    for body, status in ((chat(stream=False), 200), (chat(), 200), ({"model": 7}, 400)):
        answer = await stage.ask(proxy, body, headers=ORIGIN)
        assert answer.status == status
        assert answer.all("access-control-allow-origin") == ["https://chat.example.com"]
        assert "X-Request-Id" in (answer.header("access-control-expose-headers") or "")
    listed = await stage.ask(proxy, path="/v1/models", headers=ORIGIN)
    assert listed.header("access-control-allow-origin") == "https://chat.example.com"
    stranger = await stage.ask(proxy, chat(stream=False), headers=[("Origin", "https://evil.example.com")])
    assert stranger.header("access-control-allow-origin") is None
    assert stranger.header("vary") == "Origin"


async def test_by_default_they_are_not(stage: Stage) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine)
    for answer in (
        await stage.ask(proxy, chat(stream=False), headers=ORIGIN),
        await stage.ask(proxy, path=CHAT, method="OPTIONS", headers=PREFLIGHT),
    ):
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
