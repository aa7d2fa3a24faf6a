"""What an operator sees of tenants, and the limits that are changed while the proxy runs."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.harness.proxy import Proxy
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

KEYS: list[dict[str, Any]] = [
    {"name": "web", "tenant": "acme", "tier": "free", "value": "sk-acme"},
    {"name": "dev", "tier": "paid", "value": "sk-dev"},
]
ACME = [("Authorization", "Bearer sk-acme")]
Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
async def admin() -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as http:

        async def ask(proxy: Proxy, path: str, post: Any = ...) -> tuple[int, Any]:
            options = {} if post is ... else {"data": post if isinstance(post, bytes) else json.dumps(post)}
            method = "GET" if post is ... else "POST"
            async with http.request(method, f"{proxy.admin_url}/admin/tenants{path}", **options) as response:
                return response.status, await response.json()

        yield ask


async def test_what_tenants_use_and_have_left(stage: Stage, admin: Ask) -> None:
    engine = await stage.backend()
    proxy = await stage.proxy(engine, keys=KEYS)
    assert await admin(proxy, "") == (200, {"tenants": {}})
    for _ in range(3):
        assert (await stage.ask(proxy, chat(stream=False, max_tokens=4), headers=ACME)).status == 200
    status, found = await admin(proxy, "/acme")
    assert status == 200
    assert (found["tenant"], found["tier"], found["override"]) == ("acme", "free", None)
    assert found["usage"] == (await admin(proxy, ""))[1]["tenants"]["acme"]
    assert (found["usage"]["requests_passed"], found["usage"]["in_flight"]) == (3, 0)
    assert found["usage"]["completion_tokens"] == 12
    limit = found["limits"][0]
    assert limit | {"resets_in": ""} == {
        "unit": "requests",
        "scope": "tenant",
        "kind": "bucket",
        "limit": 10,
        "remaining": 7,
        "resets_in": "",
    }
    # Known by its key, though nobody has come with it.
    status, found = await admin(proxy, "/dev")
    assert (status, found["tier"], found["usage"], found["limits"][0]["remaining"]) == (200, "paid", None, 60)
    assert await admin(proxy, "/nobody") == (
        404,
        {"error": {"message": "nothing is known here of a tenant 'nobody'", "code": "tenant_not_found"}},
    )


async def test_other_limits_until_they_are_dropped(stage: Stage, admin: Ask) -> None:
    proxy = await stage.proxy(await stage.backend(), keys=KEYS)

    async def asked() -> tuple[int, str | None]:
        answer = await stage.ask(proxy, chat(), headers=ACME)
        return answer.status, answer.header("x-ratelimit-limit-requests")

    assert await asked() == (200, "10")
    # A bucket that grows has what it had; it fills up in time.
    wider = {"requests_per_minute": 500, "concurrency": 3}
    assert await admin(proxy, "/acme/limits", wider) == (200, {"tenant": "acme", "override": wider})
    assert [await asked() for _ in range(9)] == [(200, "500")] * 9
    assert (await admin(proxy, "/acme"))[1]["override"] == wider
    stage.clock.jump(60)
    assert [await asked() for _ in range(20)] == [(200, "500")] * 20
    assert (await admin(proxy, "/acme/limits", {"requests_per_minute": None}))[0] == 200
    assert await asked() == (200, None)
    assert await admin(proxy, "/acme/limits", None) == (200, {"tenant": "acme", "override": None})
    assert await asked() == (200, "10")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "POST a JSON object"),
        (b"", "POST a JSON object"),
        (b"[" * 100_000, "POST a JSON object"),
        ([], "limits are a JSON object"),
        (7, "limits are a JSON object"),
        ({"requests": 7}, "unknown limit 'requests'"),
        ({"requests_per_minute": 0}, "requests_per_minute is out of range"),
        ({"requests_per_minute": "7"}, "requests_per_minute must be a whole number"),
        ({"cost_per_day": -1}, "cost_per_day is out of range"),
    ],
)
async def test_what_is_no_quota_changes_nothing(
    stage: Stage, admin: Ask, body: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    proxy = await stage.proxy(await stage.backend(), keys=KEYS)
    status, answer = await admin(proxy, "/acme/limits", body)
    assert status == 400
    assert answer["error"]["message"].startswith(words)
    assert (await admin(proxy, "/acme"))[1]["override"] is None
    assert "set limits" not in caplog.text
    assert (await admin(proxy, "/acme/limits", {}))[0] == 200
    assert "set limits" in caplog.text


async def test_where_nobody_is_limited(stage: Stage, admin: Ask) -> None:
    proxy = await stage.proxy(await stage.backend())
    assert (await admin(proxy, "")) == (200, {"tenants": {}})
    assert (await admin(proxy, "/acme"))[0] == 404
    status, answer = await admin(proxy, "/acme/limits", {"concurrency": 1})
    assert (status, answer["error"]["code"]) == (400, "invalid_limits")


async def test_addresses_are_tenants(stage: Stage, admin: Ask) -> None:
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    proxy = await stage.proxy(await stage.backend(), server=server, auth={"anonymous": "free"})
    for address in ("192.0.2.1", "2001:db8::1"):
        assert (await stage.ask(proxy, chat(), headers=[("X-Forwarded-For", address)])).status == 200
    names = list((await admin(proxy, ""))[1]["tenants"])
    assert names == ["ip:192.0.2.1", "ip:2001:db8:0:0::/64"]
    for name in names:
        status, found = await admin(proxy, "/" + name.replace("/", "%2F"))
        assert (status, found["tenant"], found["limits"][0]["scope"]) == (200, name, "ip")


@pytest.mark.skipif(not is_installed(), reason=MISSING)
async def test_in_redis_for_all_proxies(stage: Stage, admin: Ask, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        engine = await stage.backend()
        limits = {"store": redis.url, "store_timeout": "500ms"}
        one, two = [await stage.proxy(engine, keys=KEYS, limits=limits) for _ in range(2)]
        assert (await admin(one, "/acme/limits", {"requests_per_minute": 77}))[0] == 200

        async def told(proxy: Proxy) -> str | None:
            return (await stage.ask(proxy, chat(), headers=ACME)).header("x-ratelimit-limit-requests")

        assert await told(one) == "77"

        async def followed() -> bool:
            return await told(two) == "77"

        await until(followed, "the other proxy's turn")
        assert (await admin(two, "/acme"))[1]["override"] == {"requests_per_minute": 77}
        redis.kill()
        await until(lambda: not one.handler.limiter.store.connected, "the loss")
        status, answer = await admin(one, "/acme/limits", None)
        assert (status, answer["error"]["code"]) == (503, "limits_unavailable")
