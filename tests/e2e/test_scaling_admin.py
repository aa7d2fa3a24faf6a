"""The scaling part of the admin API: roles, the audit log, events, pauses, registration."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llmproxy.config.model import Config
from llmproxy.policy.scaling.base import Signals
from tests.harness.proxy import Proxy, settings
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

TOKENS = [
    {"name": "ops", "token": "token-of-ops", "role": "scaler"},
    {"name": "board", "token": "token-of-board", "role": "viewer"},
    {"name": "root", "token": "token-of-root", "role": "admin"},
]


async def ask(
    proxy: Proxy, method: str, path: str, body: Any = None, token: str = "token-of-ops"
) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = proxy.admin_url + path
    async with aiohttp.ClientSession(headers=headers) as http, http.request(method, url, json=body) as answer:
        return answer.status, await answer.json()


async def dry(stage: Stage, tmp_path: Path, **pools: Any) -> Proxy:
    backend = await stage.backend()
    scaling = {"min": 1, "max": 4, "interval": "0.1s", "actuator": "dry_run"}
    pool = {"backends": [{"url": backend.url, "id": "b1"}], "scaling": scaling}
    admin = {"tokens": TOKENS, "audit": str(tmp_path / "audit.jsonl")}
    return await stage.serve(settings({"main": pool} | pools, tmp_path / "access.jsonl", admin=admin))


async def test_roles(stage: Stage, tmp_path: Path) -> None:
    proxy = await dry(stage, tmp_path)
    assert (await ask(proxy, "GET", "/admin/scaling", token=""))[0] == 401
    assert (await ask(proxy, "GET", "/admin/scaling", token="another"))[0] == 401
    assert (await ask(proxy, "GET", "/admin/scaling", token="token-of-board"))[0] == 200
    for path in ("/admin/scaling/pause", "/admin/scaling/main/event", "/admin/pools/main/backends"):
        status, answer = await ask(proxy, "POST", path, {"replicas": 1}, token="token-of-board")
        assert (status, answer["error"]["code"]) == (403, "role_required")
    assert (await ask(proxy, "POST", "/admin/scaling/pause", {}))[0] == 200
    assert (await ask(proxy, "POST", "/admin/pools/main/backends/b1/drain"))[0] == 403
    assert (await ask(proxy, "POST", "/admin/pools/main/backends/b1/drain", token="token-of-root"))[0] == 200
    assert (await ask(proxy, "POST", "/admin/pools/main/backends/b1/undrain", token="token-of-root"))[0] == 200
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(one["who"], one["what"], one.get("backend")) for one in lines] == [
        ("ops", "pause", None),
        ("root", "drain", "b1"),
        ("root", "undrain", "b1"),
    ], "what was refused changed nothing"


async def test_events_pauses_and_their_traces(stage: Stage, tmp_path: Path) -> None:
    proxy = await dry(stage, tmp_path)
    event = {"replicas": 3, "for": "1h", "why": "launch"}
    status, view = await ask(proxy, "POST", "/admin/scaling/main/event", event)
    assert status == 201
    assert [(one["replicas"], one["who"], one["why"]) for one in view["events"]] == [(3, "ops", "launch")]

    async def decided() -> bool:
        _, answer = await ask(proxy, "GET", "/admin/scaling/main/decisions")
        return any(one["policy"] == "event" and one["replicas"] == 3 for one in answer["decisions"])

    await until(decided, "a decision for the event")
    _, answer = await ask(proxy, "GET", "/admin/scaling/main/decisions")
    assert not any(one["acted_upon"] for one in answer["decisions"]), "a dry run"
    assert answer["decisions"][0]["signals"]["queue_depth"] == 0
    assert (await ask(proxy, "DELETE", "/admin/scaling/main/event", {"why": "over"}))[1] == {"cleared": 1}
    await ask(proxy, "POST", "/admin/scaling/pause", {"pool": "main", "why": "night"})
    assert (await ask(proxy, "GET", "/admin/scaling/main"))[1]["paused"] == "ops: night"
    assert proxy.metric("llmproxy_scaling_paused", pool="main") == 1
    await ask(proxy, "POST", "/admin/scaling/resume")
    assert (await ask(proxy, "GET", "/admin/scaling/main"))[1]["paused"] is None
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(one["who"], one["what"], one["why"]) for one in lines] == [
        ("ops", "event", "launch"),
        ("ops", "clear events", "over"),
        ("ops", "pause", "night"),
        ("ops", "resume", ""),
    ]


async def test_mistakes(stage: Stage, tmp_path: Path) -> None:
    proxy = await dry(stage, tmp_path)
    for path, body, status in (
        ("/admin/scaling/nope/event", {"replicas": 1}, 404),
        ("/admin/scaling/main/event", {}, 422),
        ("/admin/scaling/main/event", {"replicas": -1}, 422),
        ("/admin/scaling/main/event", {"replicas": 10**400}, 422),
        ("/admin/scaling/main/event", {"replicas": 10**6}, 422),
        ("/admin/scaling/main/event", {"replicas": 1, "why": "\ud800"}, 422),
        ("/admin/scaling/main/event", {"replicas": 1, "for": "x"}, 422),
        ("/admin/scaling/main/event", {"replicas": 1, "for": "30d"}, 422),
        ("/admin/scaling/main/event", {"replicas": 1, "duration": "5m"}, 422),
        ("/admin/scaling/main/event", [1], 400),
        ("/admin/scaling/pause", {"pool": "nope"}, 404),
        ("/admin/scaling/pause", {"why": 3}, 422),
        ("/admin/scaling/pause", {"why": "\ud800"}, 422),
        ("/admin/pools/nope/backends", {"url": "http://127.0.0.1:1"}, 404),
        ("/admin/pools/main/backends", {"url": "ftp://x"}, 422),
        ("/admin/pools/main/backends", {"url": "http://127.0.0.1:1", "id": "b1"}, 422),
        ("/admin/pools/main/backends", {"url": "http://127.0.0.1:1", "ttl": "0s"}, 422),
        ("/admin/pools/main/backends", {"url": "http://127.0.0.1:1", "what": 1}, 422),
    ):
        assert (await ask(proxy, "POST", path, body))[0] == status, (path, body)


@pytest.mark.parametrize(
    "path",
    ["/admin/scaling/pause", "/admin/scaling/resume", "/admin/scaling/main/event", "/admin/pools/main/backends"],
)
async def test_a_body_that_is_no_text(stage: Stage, tmp_path: Path, path: str) -> None:
    proxy = await dry(stage, tmp_path)
    headers = {"Authorization": "Bearer token-of-ops"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(proxy.admin_url + path, data=b"\xff") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "bad_request")
        kind = {"Content-Type": "application/json; charset=nonsense"}
        async with http.post(proxy.admin_url + path, data=b"[]", headers=kind) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "bad_request")


async def test_a_pool_that_leaves_while_it_is_asked_about(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await dry(stage, tmp_path)
    scaling = proxy.app.autoscaling.all
    events = scaling.scalers["main"].parts.shared.events
    sync = events.sync
    left = []

    async def leaves() -> bool:
        left.append(scaling.scalers.pop("main"))
        return await sync()

    monkeypatch.setattr(events, "sync", leaves)
    status, answer = await ask(proxy, "POST", "/admin/scaling/main/event", {"replicas": 1})
    await left[0].stop()
    assert (status, answer["error"]["code"]) == (404, "pool_not_found")
    with pytest.raises(ValueError, match="not scaled any more"):
        await proxy.app._adviser.advise("main")


async def test_an_instance_registers_itself_and_falls_silent(stage: Stage, tmp_path: Path) -> None:
    proxy = await dry(stage, tmp_path)
    another = await stage.backend()
    body = {"url": another.url, "id": "fresh", "ttl": "60s", "price_per_hour": 3.5, "spot": True}
    assert (await ask(proxy, "POST", "/admin/pools/main/backends", body)) == (201, {"id": "fresh", "ttl_s": 60.0})
    await proxy.healthy("fresh")
    live = proxy.backend("fresh")
    await until(lambda: proxy.metric("llmproxy_cost_per_hour", pool="main") == 3.5, "its price")
    await ask(proxy, "POST", "/admin/pools/main/backends", body)
    assert proxy.backend("fresh") is live
    assert {(await stage.ask(proxy, chat())).header("x-llmproxy-backend") for _ in range(6)} == {"b1", "fresh"}
    assert (await ask(proxy, "DELETE", "/admin/pools/main/backends/fresh"))[0] == 200
    assert [backend.id for backend in proxy.pool().backends] == ["b1"]
    await ask(proxy, "POST", "/admin/pools/main/backends", body | {"ttl": "1s"})
    await until(lambda: len(proxy.pool().backends) == 1, "it leaves when it is silent")


async def test_costs(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend()
    pool = {"backends": [{"url": backend.url, "id": "b1", "price_per_hour": 3600}]}
    proxy = await stage.serve(settings({"main": pool}, tmp_path / "access.jsonl"))
    # A model's name is a label once a backend has told it.
    await until(lambda: "emulated" in proxy.app.metrics._models, "the models")
    assert (await stage.ask(proxy, chat(stream=False, max_tokens=5))).status == 200

    async def told() -> dict[str, Any] | None:
        _, answer = await ask(proxy, "GET", "/admin/costs", token="")
        found = answer["pools"].get("main", {})
        return found if found.get("models") else None

    found = await until(told, "costs that were shared out")
    assert found["per_hour"] == 3600
    assert found["requests"] == 1
    assert found["tokens"] > 5
    assert found["cost"] == pytest.approx(found["busy"] + found["idle"])
    assert found["tenants"]["none"]["cost"] > 0
    assert proxy.metric("llmproxy_cost_total", pool="main") > 0
    assert proxy.metric("llmproxy_model_cost_total", pool="main", model="emulated") > 0


async def test_a_pause_outlives_the_proxy(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend()
    scaling = {"max": 4, "interval": "0.1s", "actuator": "dry_run", "history": str(tmp_path / "history.db")}
    pool = {"backends": [{"url": backend.url, "id": "b1"}], "scaling": scaling}
    first = await stage.serve(settings({"main": pool}, tmp_path / "access.jsonl"))
    assert (await ask(first, "POST", "/admin/scaling/pause", {"why": "fire"}, token=""))[0] == 200
    await first.app.stop()
    second = await stage.serve(settings({"main": pool}, tmp_path / "again.jsonl"))
    await until(lambda: second.metric("llmproxy_scaling_paused", pool="main") == 1, "it is still paused")
    assert (await ask(second, "POST", "/admin/scaling/resume", {}, token=""))[0] == 200
    await second.app.stop()
    third = await stage.serve(settings({"main": pool}, tmp_path / "third.jsonl"))
    decisions = third.app.autoscaling.all.scalers["main"].parts.decisions
    await until(lambda: decisions.latest is not None, "a decision")
    assert third.metric("llmproxy_scaling_paused", pool="main") == 0


async def test_backends_from_a_file(stage: Stage, tmp_path: Path) -> None:
    one, other = await stage.backends(2)
    file = tmp_path / "backends.yaml"
    file.write_text(f"- {{url: {one.url}, id: f1}}\n")
    values = settings({"main": {"discovery": {"file": str(file)}}}, tmp_path / "access.jsonl")
    proxy = await stage.serve(values)
    assert (await stage.ask(proxy, chat())).header("x-llmproxy-backend") == "f1"
    file.write_text(f"- {{url: {other.url}, id: f2}}\n")
    await until(lambda: [backend.id for backend in proxy.pool().backends] == ["f2"], "the new list")
    await proxy.healthy()
    assert (await stage.ask(proxy, chat())).header("x-llmproxy-backend") == "f2"


async def test_a_reload_keeps_what_is_known(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend()
    scaling = {"max": 4, "interval": "0.1s", "actuator": "dry_run"}
    scaling["budget"] = {"price_per_hour": 1.0, "per_month": 1e6}
    values = settings({"main": {"backends": [{"url": backend.url, "id": "b1"}], "scaling": scaling}}, None)
    proxy = await stage.serve(values, load=lambda: Config.model_validate(values))
    scaler = proxy.app.autoscaling.all.scalers["main"]

    def spent() -> float:
        found = scaler.parts.decider.guardrails.spent
        return 0.0 if found is None else found.month

    await until(lambda: spent() > 0, "money spent")
    assert proxy.metric("llmproxy_scaling_budget", pool="main", window="month") == 1e6
    assert proxy.metric("llmproxy_scaling_budget", pool="main", window="hour") == 0
    before = scaler.parts.decider
    before.guardrails.done(2, scaler._clock())
    scaling |= {"max": 3, "changes_per_hour": 2}
    assert (await ask(proxy, "POST", "/admin/reload", token=""))[0] == 200
    after = scaler.parts.decider
    assert after is not before
    assert after.policies == before.policies, "they know what they have seen"
    assert spent() > 0
    ruling = after.guardrails.rule(3, Signals(now=scaler._clock(), ready=1), scaler._clock())
    assert ruling.replicas == 1, "two were added within the hour"
    scaling |= {"policies": ["demand"], "capacity": {"requests_per_s": 3}}
    scaling["prometheus"] = {"load": {"url": backend.url, "query": "up"}}
    assert (await ask(proxy, "POST", "/admin/reload", token=""))[0] == 200
    assert scaler.parts.meter.capacity.rates.requests_per_s == 3
    await until(lambda: "/api/v1/query" in [one.path.partition("?")[0] for one in backend.requests], "a query")
    assert [type(one).__name__ for one in scaler.parts.decider.policies][:2] == ["DemandLaw", "Events"]


async def test_a_reload_changes_what_tiers_cost(stage: Stage) -> None:
    budget = {"price_per_hour": 2.0, "per_hour": 12}
    scaling = {"max": 4, "interval": "0.1s", "actuator": "dry_run", "budget": budget}
    scaling["tiers_of_capacity"] = [{"name": "small"}, {"name": "big", "worth": 2, "price_per_hour": 5}]
    backend = await stage.backend()
    values = settings({"main": {"backends": [{"url": backend.url, "id": "b1"}], "scaling": scaling}}, None)
    proxy = await stage.serve(values, load=lambda: Config.model_validate(values))
    parts = proxy.app.autoscaling.all.scalers["main"].parts
    tiers = parts.decider.tiers
    budget["price_per_hour"] = 3.0
    assert (await ask(proxy, "POST", "/admin/reload", token=""))[0] == 200
    assert parts.decider.tiers is tiers, "it knows what it has seen"
    assert tiers is not None
    assert [tier.price_per_hour for tier in tiers.tiers] == [3.0, 5.0]
    assert parts.lives.terms.of("small").price_per_hour == 3.0


async def test_a_reload_with_a_bad_line_to_warm_up_with_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    backend = await stage.backend()
    scaling: dict[str, Any] = {"max": 4, "interval": "0.1s", "actuator": "dry_run"}
    pool: dict[str, Any] = {"backends": [{"url": backend.url, "id": "b1"}], "scaling": scaling}
    values = settings({"main": pool}, None)
    proxy = await stage.serve(values, load=lambda: Config.model_validate(values))
    file = tmp_path / "warm-up.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": \n')
    scaling |= {"warm_up": str(file)}
    pool["queue"] = {"wait": "77s"}
    before = proxy.app.config
    status, answer = await ask(proxy, "POST", "/admin/reload", token="")
    assert status == 422
    assert f"{file}, line 2: is no JSON" in json.dumps(answer)
    assert proxy.app.config is before
    assert proxy.pool().settings.queue.wait != 77
    file.write_text('{"prompt": "a"}\n')
    assert (await ask(proxy, "POST", "/admin/reload", token=""))[0] == 200
    assert proxy.pool().settings.queue.wait == 77
