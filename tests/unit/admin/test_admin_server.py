"""The admin port over real sockets."""

import copy
import io
import socket

import pytest

from llmproxy.admin.server import AdminServer
from llmproxy.control.reload import ReloadResult
from llmproxy.core.backend import Gauges, Status
from llmproxy.core.errors import BadRequest


async def test_live_as_long_as_it_answers(admin):
    admin.draining = True
    assert (await admin.ask("GET", "/livez"))[:2] == (200, {"live": True})
    assert (await admin.ask("HEAD", "/livez"))[0] == 200


async def test_ready_when_any_pool_could_take_a_request(admin):
    assert (await admin.ask("GET", "/readyz"))[:2] == (503, {"ready": False, "reason": "no_backend_available"})
    first, second = admin.add_pool("one", "a"), admin.add_pool("two", "b")
    assert (await admin.ask("GET", "/readyz"))[:2] == (200, {"ready": True})
    first.backends[0].status = Status.LOADING
    assert (await admin.ask("GET", "/readyz"))[0] == 200
    second.backends[0].status = Status.UNHEALTHY
    assert (await admin.ask("GET", "/readyz"))[0] == 503


async def test_not_ready_while_draining(admin):
    admin.add_pool("one", "a")
    admin.draining = True
    assert (await admin.ask("GET", "/readyz"))[:2] == (503, {"ready": False, "reason": "draining"})


async def test_metrics_are_rendered_as_they_come(admin):
    status, body, headers = await admin.ask("GET", "/metrics")
    assert (status, body, headers["Content-Type"]) == (200, *admin.metrics)


async def test_a_pool_shows_its_backends(admin):
    pool = admin.add_pool("llama", "a", "b")
    first, second = pool.backends
    first.load.enter()
    first.weight = 0.25
    first.gauges = Gauges(at=98.5, running=3, kv_usage=0.5, models=("m",))
    second.status = Status.OPEN
    admin.facts = {"failures": 2}
    status, body, _ = await admin.ask("GET", "/admin/pools/llama")
    assert status == 200
    assert body["name"] == "llama"
    assert (body["eligible"], body["in_flight"]) == (1, 1)
    everything = copy.deepcopy(body)
    gauges = body["backends"][0].pop("gauges")
    shown = {"age_s": 1.5, "fresh": True, "running": 3, "waiting": None, "kv_usage": 0.5, "models": ["m"], "gpu": None}
    assert gauges.items() >= shown.items()
    assert body["backends"][0] == {
        "id": "a",
        "url": "http://a:8000",
        "state": "healthy",
        "breaker": "closed",
        "in_flight": 1,
        "weight": 1.0,
        "effective_weight": 0.25,
        "max_concurrency": None,
        "failures": 2,
    }
    assert (body["backends"][1]["state"], body["backends"][1]["breaker"]) == ("open", "open")
    assert body["backends"][1]["gauges"] is None
    assert (await admin.ask("GET", "/admin/pools"))[1] == {"pools": [everything]}


async def test_drain_and_undrain_go_to_the_health_registry(admin):
    pool = admin.add_pool("llama", "a", "b")
    status, body, _ = await admin.ask("POST", "/admin/pools/llama/backends/b/drain")
    assert (status, body["id"], body["state"]) == (200, "b", "draining")
    admin.clock.advance(5)
    status, body, _ = await admin.ask("POST", "/admin/pools/llama/backends/b/undrain")
    assert (status, body["state"]) == (200, "healthy")
    assert pool.health.calls == [("drain", "b", 100.0), ("undrain", "b", 105.0)]
    assert admin.drains == ["llama", "llama"]


async def test_reload_says_how_it_went(admin):
    admin.reload_result = ReloadResult(changed=True, needs_restart=("server.port",))
    status, body, _ = await admin.ask("POST", "/admin/reload")
    assert (status, body) == (200, {"reloaded": True, "changed": True, "needs_restart": ["server.port"]})
    admin.reload_result = ReloadResult(problems=("c.yaml:3: no", "c.yaml:4: never"))
    status, body, _ = await admin.ask("POST", "/admin/reload")
    assert status == 422
    assert body["error"]["code"] == "invalid_configuration"
    assert body["error"]["problems"] == ["c.yaml:3: no", "c.yaml:4: never"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "words"),
    [
        ("GET", "/admin/pools/gemma", 404, "pool_not_found", ["gemma", "llama"]),
        ("POST", "/admin/pools/gemma/backends/a/drain", 404, "pool_not_found", ["gemma", "llama"]),
        ("POST", "/admin/pools/llama/backends/z/drain", 404, "backend_not_found", ["'z'", "a, b"]),
        ("POST", "/admin/pools/llama/backends/z/undrain", 404, "backend_not_found", ["'z'", "a, b"]),
        ("POST", "/admin/pools/llama/backends/a/explode", 404, "not_found", ["explode"]),
        ("GET", "/nowhere", 404, "not_found", ["/nowhere"]),
        ("GET", "/admin/reload", 405, "method_not_allowed", ["POST", "GET"]),
        ("DELETE", "/admin/pools", 405, "method_not_allowed", ["GET", "DELETE"]),
    ],
)
async def test_errors_are_json_and_say_what_would_have_worked(admin, method, path, status, code, words):
    admin.add_pool("llama", "a", "b")
    got, body, headers = await admin.ask(method, path)
    assert (got, body["error"]["code"]) == (status, code)
    assert all(word in body["error"]["message"] for word in words)
    assert ("Allow" in headers) is (status == 405)


async def test_a_defect_is_a_500_without_its_details(admin, caplog):
    admin.metrics = None
    status, body, _ = await admin.ask("GET", "/metrics")
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "cannot unpack" in caplog.text
    assert "cannot unpack" not in str(body)


async def test_the_token_is_asked_for_and_may_change_under_way(admin):
    for path in ("/admin/pools", "/metrics", "/nowhere"):
        admin.token = "first"
        status, body, headers = await admin.ask("GET", path)
        assert (status, body["error"]["code"]) == (401, "invalid_token")
        assert headers["WWW-Authenticate"].startswith("Bearer")
        assert (await admin.ask("GET", path, Authorization="Bearer first"))[0] != 401
        admin.token = "second"
        assert (await admin.ask("GET", path, Authorization="Bearer first"))[0] == 401
    assert (await admin.ask("GET", "/livez"))[0] == 200


async def test_a_refused_request_changes_nothing(admin):
    pool = admin.add_pool("llama", "a")
    path = "/admin/pools/llama/backends/a/drain"
    assert (await admin.ask("POST", path, Host="evil.example"))[0] == 403
    assert (await admin.ask("POST", path, Origin="https://evil.example"))[0] == 403
    admin.token = "t"
    assert (await admin.ask("POST", path))[0] == 401
    assert pool.health.calls == []


async def test_a_wide_port_without_a_token_serves_health_only(admin):
    wide = AdminServer(admin.deps(), host="0.0.0.0", port=0)
    await wide.start()
    try:
        admin.server, narrow = wide, admin.server
        assert (await admin.ask("GET", "/admin/pools"))[1]["error"]["code"] == "token_required"
        assert (await admin.ask("GET", "/livez"))[0] == 200
        admin.token = "t"
        assert (await admin.ask("GET", "/admin/pools", Authorization="Bearer t"))[0] == 200
        admin.server = narrow
    finally:
        await wide.stop()


async def test_answers_are_not_cached_and_name_no_versions(admin):
    for path in ("/livez", "/nowhere", "/admin/pools"):
        headers = (await admin.ask("GET", path))[2]
        assert headers["Server"] == "llmproxy"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_a_taken_port_is_an_error_and_leaves_nothing_behind(admin):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        second = AdminServer(admin.deps(), host="127.0.0.1", port=port)
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.stop()
        assert second.port == port


async def test_stop_closes_the_port(admin):
    port = admin.server.port
    await admin.server.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


async def test_explain_hands_on_the_question_and_its_answer(admin):
    pool = admin.add_pool("llama", "a")
    admin.answer = {"pick": "a"}
    assert (await admin.ask("GET", "/admin/pools/llama/explain"))[:2] == (200, {"pick": "a"})
    assert (await admin.ask("GET", "/admin/pools/llama/explain?model=m&prompt_bytes=36000"))[0] == 200
    body = b'{"messages": "%b"}' % (b"x" * 1_000_000)
    assert (await admin.ask("POST", "/admin/pools/llama/explain?model=m", body))[0] == 200
    assert admin.questions == [(pool, b"", None, 0), (pool, b"", "m", 36000), (pool, body, "m", 0)]


@pytest.mark.parametrize(
    ("method", "query", "code", "words"),
    [
        ("GET", "?modle=m", "unknown_parameter", "modle"),
        ("GET", "?prompt_bytes=1e3", "invalid_parameter", "prompt_bytes"),
        ("GET", "?prompt_bytes=-1", "invalid_parameter", "prompt_bytes"),
        ("GET", f"?prompt_bytes={'9' * 5000}", "invalid_parameter", "prompt_bytes"),
        ("POST", "", "no_body", "POST"),
    ],
)
async def test_questions_that_make_no_sense(admin, method, query, code, words):
    admin.add_pool("llama", "a")
    status, body, _ = await admin.ask(method, f"/admin/pools/llama/explain{query}")
    assert (status, body["error"]["code"]) == (400, code)
    assert words in body["error"]["message"]
    assert admin.questions == []


async def test_a_body_that_is_no_request_and_one_that_is_too_large(admin):
    admin.add_pool("llama", "a")
    admin.answer = BadRequest("no JSON", code="invalid_json")
    status, body, _ = await admin.ask("POST", "/admin/pools/llama/explain", b"x")
    assert (status, body["error"]) == (400, {"code": "invalid_json", "message": "no JSON"})
    assert (await admin.ask("POST", "/admin/pools/llama/explain", io.BytesIO(b"x" * 5_000_000)))[0] == 413
    assert (await admin.ask("POST", "/admin/pools/gemma/explain", b"x"))[0] == 404
