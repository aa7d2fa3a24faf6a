"""Keys in a real Redis, made and taken back with `llmproxy keys` while proxies run; and without it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmproxy.auth import live_keys
from llmproxy.cli import app
from llmproxy.control.reload import Trigger
from tests.harness.client import Answer
from tests.harness.proxy import Proxy, config_of, settings
from tests.harness.redis_server import MISSING, RedisServer, is_installed
from tests.harness.stage import MODEL, Stage, chat
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(not is_installed(), reason=MISSING)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


async def run(redis: RedisServer, *words: str) -> str:
    """`llmproxy keys ...`, which must succeed; what it printed."""
    command = ["keys", *words, "--store", redis.url]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


async def ask(stage: Stage, proxy: Proxy, key: str) -> Answer:
    return await stage.ask(proxy, chat(stream=False), headers=[("Authorization", f"Bearer {key}")])


async def answers(stage: Stage, proxy: Proxy, key: str, status: int) -> Answer:
    """Wait until this is what the key is answered with."""

    async def found() -> Answer | None:
        answer = await ask(stage, proxy, key)
        return answer if answer.status == status else None

    found_answer: Answer = await until(found, f"status {status}")
    return found_answer


@pytest.fixture
async def proxy(stage: Stage, redis: RedisServer) -> Proxy:
    return await stage.proxy(await stage.backend(), auth={"store": redis.url})


async def test_a_key_is_good_as_soon_as_it_is_made_and_bad_as_soon_as_it_is_revoked(
    stage: Stage, redis: RedisServer, proxy: Proxy
) -> None:
    assert (await ask(stage, proxy, "sk-invented")).status == 401
    key = await run(redis, "create", "acme", "--tier", "paid", "--tenant", "Acme")
    assert key.startswith("sk-llmproxy-")
    await answers(stage, proxy, key, 200)
    [line] = [line for line in await proxy.log() if line["status"] == 200]
    assert (line["tenant"], line["key"]) == ("Acme", "acme")
    await run(redis, "revoke", "acme")
    answer = await answers(stage, proxy, key, 401)
    assert "revoked" in answer.json["error"]["message"]


async def test_a_proxy_that_comes_later_knows_all_keys(stage: Stage, redis: RedisServer) -> None:
    keys = [await run(redis, "create", name, "--tier", "free") for name in ("a", "b")]
    await run(redis, "revoke", "b")
    proxy = await stage.proxy(await stage.backend(), auth={"store": redis.url})
    assert [(await ask(stage, proxy, key)).status for key in keys] == [200, 401]


async def test_rotating_leaves_the_old_key_good_for_a_while_or_not_at_all(
    stage: Stage, redis: RedisServer, proxy: Proxy
) -> None:
    first = await run(redis, "create", "acme", "--tier", "paid", "--model", "emu*")
    second = await run(redis, "rotate", "acme", "--grace", "1h")
    await answers(stage, proxy, second, 200)
    assert (await ask(stage, proxy, first)).status == 200
    third = await run(redis, "rotate", "acme")
    await answers(stage, proxy, second, 401)
    assert [(await ask(stage, proxy, key)).status for key in (first, third)] == [200, 200]
    await run(redis, "revoke", "acme")
    for key in (first, third):
        await answers(stage, proxy, key, 401)


async def test_a_keys_models_and_end_are_kept(stage: Stage, redis: RedisServer, proxy: Proxy) -> None:
    key = await run(redis, "create", "small", "--tier", "free", "--model", "llama-*")
    answer = await answers(stage, proxy, key, 403)
    assert answer.json["error"]["code"] == "model_not_allowed"
    short = await run(redis, "create", "short", "--tier", "free", "--expires", "1s")
    await answers(stage, proxy, short, 200)
    answer = await answers(stage, proxy, short, 401)
    assert "expired" in answer.json["error"]["message"]


async def test_a_key_of_a_tier_that_is_not_there_is_refused_until_it_is(
    stage: Stage, redis: RedisServer, tmp_path: Path
) -> None:
    """Otherwise a slip of the pen would make a key without limits."""
    engine = await stage.backend()
    values = settings({"main": {"backends": [engine.url]}}, tmp_path / "a.log", auth={"store": redis.url})
    proxy = await stage.serve(values, load=lambda: config_of(values))
    key = await run(redis, "create", "acme", "--tier", "gold")
    answer = await answers(stage, proxy, key, 403)
    assert answer.json["error"]["code"] == "unknown_tier"
    assert proxy.metric("llmproxy_auth_total", result="forbidden") == 1
    for tiers, statuses in (({"gold": {"requests_per_minute": 1}}, [200, 429]), ({}, [403, 403])):
        values["tiers"] = tiers
        assert (await proxy.app.reloader.reload(Trigger.ADMIN)).ok
        assert [(await ask(stage, proxy, key)).status for _ in range(2)] == statuses


async def test_only_hashes_are_stored(redis: RedisServer) -> None:
    key = await run(redis, "create", "acme", "--tier", "paid")
    client = redis.client()
    stored = b""
    for name in client.scan_iter():
        kind = client.type(name)
        if kind == b"hash":
            stored += repr(client.hgetall(name)).encode()
        elif kind == b"stream":
            stored += repr(client.xrange(name)).encode()
        else:
            stored += client.get(name)
    assert b"acme" in stored
    assert key.encode() not in stored
    assert key.removeprefix("sk-llmproxy-").encode() not in stored


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_without_redis_known_keys_go_on_and_unknown_ones_are_503(
    stage: Stage, redis: RedisServer, proxy: Proxy, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_keys, "FRESH_S", 1.5)
    used = await run(redis, "create", "used", "--tier", "paid")
    unused = await run(redis, "create", "unused", "--tier", "paid")
    await answers(stage, proxy, used, 200)
    if how == "kill":
        redis.kill()
    else:
        redis.freeze()
    answer = await answers(stage, proxy, "sk-llmproxy-somebodys", 503)
    assert answer.json["error"]["code"] == "auth_unavailable"
    assert answer.header("retry-after")
    assert [(await ask(stage, proxy, key)).status for key in (used, unused)] == [200, 200]
    assert proxy.metric("llmproxy_auth_total", result="unavailable") >= 1
    if how == "freeze":
        redis.resume()
        await answers(stage, proxy, "sk-llmproxy-somebodys", 401)
        assert (await ask(stage, proxy, used)).status == 200


async def test_known_keys_do_not_go_on_for_ever(stage: Stage, redis: RedisServer) -> None:
    proxy = await stage.proxy(await stage.backend(), auth={"store": redis.url, "stale_for": "1s"})
    key = await run(redis, "create", "acme", "--tier", "paid")
    await answers(stage, proxy, key, 200)
    redis.kill()
    answer = await answers(stage, proxy, key, 503)
    assert answer.json["error"]["code"] == "auth_unavailable"


async def test_a_redis_that_comes_back_without_its_data_takes_no_key_away(
    stage: Stage, redis: RedisServer, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Restarted empty: known keys go on, for as long as if it were gone. Once new keys are made, those are all."""
    key = await run(redis, "create", "acme", "--tier", "paid")
    await answers(stage, proxy, key, 200)
    redis.kill()
    redis.start()
    await until(lambda: "its data are gone" in caplog.text, "a complaint")
    assert (await ask(stage, proxy, key)).status == 200
    assert (await ask(stage, proxy, "sk-llmproxy-somebodys")).status == 503
    other = await run(redis, "create", "acme", "--tier", "paid")
    await answers(stage, proxy, other, 200)
    assert (await ask(stage, proxy, key)).status == 401


async def test_flushed_under_way(
    stage: Stage, redis: RedisServer, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    key = await run(redis, "create", "acme", "--tier", "paid")
    await answers(stage, proxy, key, 200)
    redis.client().flushall()
    await until(lambda: "its data are gone" in caplog.text, "a complaint")
    assert (await ask(stage, proxy, key)).status == 200


async def test_a_revocation_that_was_missed_counts_when_redis_is_back(
    stage: Stage, tmp_path: Path, redis: RedisServer
) -> None:
    proxy = await stage.proxy(await stage.backend(), auth={"store": redis.url})
    key = await run(redis, "create", "acme", "--tier", "paid")
    await answers(stage, proxy, key, 200)
    redis.client().client_kill_filter(_type="normal", skipme=True)
    await run(redis, "revoke", "acme")
    await answers(stage, proxy, key, 401)


async def test_without_redis_at_start_the_proxy_starts_and_takes_keys_when_it_comes(
    stage: Stage, redis: RedisServer
) -> None:
    redis.kill()
    extra = [{"name": "file", "tier": "free", "value": "sk-file"}]
    proxy = await stage.proxy(await stage.backend(), auth={"store": redis.url}, keys=extra)
    assert (await ask(stage, proxy, "sk-file")).status == 200
    assert (await ask(stage, proxy, "sk-other")).status == 503
    redis.start()
    key = await run(redis, "create", "acme", "--tier", "paid")
    await answers(stage, proxy, key, 200)


async def test_a_reload_keeps_the_copy_and_may_change_the_store(
    stage: Stage, redis: RedisServer, tmp_path: Path
) -> None:
    engine = await stage.backend()
    values: dict[str, Any] = settings(
        {"main": {"backends": [engine.url]}}, tmp_path / "a.log", auth={"store": redis.url}
    )
    proxy = await stage.serve(values, load=lambda: config_of(values))
    key = await run(redis, "create", "acme", "--tier", "paid")
    await answers(stage, proxy, key, 200)
    redis.kill()
    values["auth"] = {"store": redis.url, "stale_for": "1h"}
    assert (await proxy.app.reloader.reload(Trigger.ADMIN)).ok
    assert (await ask(stage, proxy, key)).status == 200
    with RedisServer(tmp_path / "other") as other:
        values["auth"] = {"store": other.url}
        new = await run(other, "create", "acme", "--tier", "paid")
        assert (await proxy.app.reloader.reload(Trigger.ADMIN)).ok
        assert [(await ask(stage, proxy, one)).status for one in (key, new)] == [401, 200]
        values["auth"] = {}
        assert (await proxy.app.reloader.reload(Trigger.ADMIN)).ok
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "key sync"]
    assert (await ask(stage, proxy, "anything")).status == 200
    assert MODEL
