"""Limits and keys in a Redis behind TLS and a login, behind sentinels, and in a cluster, while those change hands."""

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmproxy.cli import app
from llmproxy.core.limits import Kind, Limit, Scope, Taken, Unit
from llmproxy.core.redis_url import parse_redis_url
from llmproxy.limiting import outcome
from llmproxy.stores.redis import RedisStore
from tests.harness.certificates import Authority
from tests.harness.proxy import Proxy
from tests.harness.redis_fleet import Cluster, Guard, Watched
from tests.harness.redis_server import TOO_OLD, RedisServer, major_version
from tests.harness.stage import Stage, chat
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(major_version() < 7, reason=TOO_OLD)

DOCS = Path(__file__).parents[2] / "docs"
LOGIN = ("proxy", "s3cr:t@x/y")
BURST = 10
LIMIT = Limit("t:acme:rpm", Kind.BUCKET, Unit.REQUESTS, Scope.TENANT, 1, BURST)
"""Refilled once a minute: what passes within a test is the burst."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
async def open_store() -> AsyncIterator[Callable[[str], Awaitable[RedisStore]]]:
    stores: list[RedisStore] = []

    async def open_store(url: str) -> RedisStore:
        # Generous: what these tests are about must not depend on a busy machine.
        store = RedisStore(parse_redis_url(url), name=f"p{len(stores)}", rng=random.Random(1), timeout_s=0.5)
        stores.append(store)
        await store.start(patience_s=10.0)
        return store

    yield open_store
    await asyncio.gather(*(store.close() for store in stores))


async def passed(store: RedisStore, count: int) -> int:
    """How many of `count` requests may pass."""

    async def story() -> Taken:
        taken = store.take([LIMIT], [1], "", 1)
        return taken if isinstance(taken, Taken) else await taken

    async with asyncio.timeout(20):
        return sum([(await outcome(story())).ok for _ in range(count)])


async def connected(store: RedisStore) -> None:
    await until(lambda: store.connected and not store._giving and not store._sent, "a link, and all said")


async def run(url: str, *words: str, status: int = 0) -> str:
    """`llmproxy keys ...` and what it printed."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["keys", *words, "--store", url])
    assert result.exit_code == status, result.output
    return result.output.strip()


async def ask(stage: Stage, proxy: Proxy, key: str) -> int:
    headers = [("Authorization", f"Bearer {key}")]
    return (await stage.ask(proxy, chat(stream=False, max_tokens=1), headers=headers)).status


async def answered(stage: Stage, proxy: Proxy, key: str, status: int) -> None:
    async def so() -> bool:
        return await ask(stage, proxy, key) == status

    await until(so, f"status {status}", timeout_s=20)


async def proxy_on(stage: Stage, url: str) -> Proxy:
    """Its keys and its limits are at `url`."""
    tiers = {"few": {"requests_per_minute": 1, "burst": {"requests": BURST}}, "many": {}}
    limits = {"store": url, "store_timeout": "500ms"}
    return await stage.proxy(await stage.backend(), auth={"store": url}, tiers=tiers, limits=limits)


async def enforced(stage: Stage, url: str) -> tuple[Proxy, str]:
    """Keys are known and revoked and limits are kept through `url`. A proxy there, and a key without limits."""
    few, many = [await run(url, "create", tier, "--tier", tier) for tier in ("few", "many")]
    proxy = await proxy_on(stage, url)
    assert [await ask(stage, proxy, few) for _ in range(BURST + 1)] == [200] * BURST + [429]
    assert proxy.metric("llmproxy_limit_decisions_total", by="redis") == BURST + 1
    await run(url, "revoke", "few")
    await answered(stage, proxy, few, 401)
    assert "many" in await run(url, "list")
    assert await ask(stage, proxy, many) == 200
    return proxy, many


# -- TLS and a login ---------------------------------------------------------------------------------------------------


async def test_behind_tls_and_a_login(
    stage: Stage, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with RedisServer(tmp_path / "tls", authority=authority, login=LOGIN) as server:
        proxy, key = await enforced(stage, server.url)
        server.kill()
        await until(lambda: not proxy.handler.limiter.store.connected, "the loss")
        server.start()
        await until(lambda: proxy.handler.limiter.store.connected, "a link to Redis")
        assert await ask(stage, proxy, key) == 200
    assert LOGIN[1] not in caplog.text
    assert "s3cr" not in caplog.text


async def refuses(stage: Stage, url: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is talked to at `url`: requests go on without limits of others', keys of the store are not known, and
    both `said` and the command say why."""
    caplog.set_level(logging.DEBUG)
    proxy = await proxy_on(stage, url)
    assert not proxy.handler.limiter.store.connected
    assert await ask(stage, proxy, "sk-unknown") == 503
    for beginning in ("limits: cannot use Redis", "the key store cannot be asked"):
        lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith(beginning)]
        assert any(said in line for line in lines), lines
    assert said in await run(url, "list", status=1)
    assert "s3cr" not in caplog.text


async def test_a_certificate_of_another_authority_is_refused(
    stage: Stage, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path / "other")
    with RedisServer(tmp_path / "tls", authority=authority, login=LOGIN) as server:
        url = server.url.replace(str(authority.ca), str(other.ca))
        await refuses(stage, url, "its certificate is not trusted", caplog)


async def test_a_certificate_for_another_host_is_refused(
    stage: Stage, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.issue("other", "redis.example.com")
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with RedisServer(tmp_path / "tls", authority=authority, login=LOGIN) as server:
        client = server.client()
        client.config_set(*(word.removeprefix("--") for word in options))
        await refuses(stage, server.url, "its certificate is not trusted", caplog)


async def test_a_wrong_password_is_said(
    stage: Stage, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path / "tls", authority=authority, login=LOGIN) as server:
        await refuses(stage, server.url.replace("s3cr", "s3cret"), "WRONGPASS", caplog)


async def test_certificates_of_clients(
    stage: Stage, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `tls-auth-clients yes`, Redis's default, asks for."""
    certificate, key = authority.issue("proxy")
    with RedisServer(tmp_path / "tls", authority=authority, login=LOGIN) as server:
        server.client().config_set("tls-auth-clients", "yes")
        await enforced(stage, f"{server.url}&cert={certificate}&key={key}")
        await refuses(stage, server.url, "TLS", caplog)


def documented_rights() -> list[str]:
    rights = ["reset", "on", ">narrow"]
    for page in ("limits.md", "auth.md"):
        [rule] = re.findall(r"^ACL SETUSER proxy on >password ([^`]+)", (DOCS / page).read_text(), re.MULTILINE)
        rights += rule.split()
    return rights


async def test_a_user_who_may_do_no_more_than_the_documents_say(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path / "acl") as server:
        server.client().execute_command("ACL", "SETUSER", "narrow", *documented_rights())
        url = server.url.replace("redis://", "redis://narrow:narrow@").replace("/0", "/1")
        proxy, _ = await enforced(stage, url)
        store = proxy.handler.limiter.store
        await store.set_override("few", "{}")
        await store.set_override("few", None)
    assert "NOPERM" not in caplog.text


# -- sentinels ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "guarded"])
def guard(request: pytest.FixtureRequest, authority: Authority) -> Guard | None:
    """Without anything, and with certificates and logins for all."""
    return None if request.param == "plain" else Guard(authority, LOGIN)


async def test_through_sentinels_over_a_failover(
    stage: Stage,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    open_store: Callable[[str], Awaitable[RedisStore]],
    guard: Guard | None,
) -> None:
    """One of them is dead from the start. What passes before, while nobody is there, and after is one burst."""
    caplog.set_level(logging.DEBUG)
    with RedisServer(tmp_path / "dead") as dead:
        nobody = dead.address
    with Watched(tmp_path / "watched", sentinels=2, sentinel_password="s3cr:t", guard=guard) as redis:
        url = redis.url(nobody)
        proxy, key = await enforced(stage, url)
        store = await open_store(url)
        assert await passed(store, 4) == 4
        redis.replica_heard_all()
        redis.primary.kill()
        await until(lambda: not store.connected, "the loss")
        assert await passed(store, 3) == 3
        assert await ask(stage, proxy, key) == 200
        await asyncio.to_thread(redis.fail_over)
        await connected(store)
        assert await passed(store, 20) == BURST - 7
        await until(lambda: proxy.handler.limiter.store.connected, "the proxy's link")
        # Keys are made on the new primary, and proxies hear of it.
        new = await run(url, "create", "new", "--tier", "many")
        await answered(stage, proxy, new, 200)
        assert await ask(stage, proxy, key) == 200
        await run(url, "revoke", "new")
        await answered(stage, proxy, new, 401)
        # The old one comes back, takes itself for the primary for a while, and is nobody's.
        redis.primary.start()
        await answered(stage, proxy, key, 200)
        assert await passed(store, 5) == 0
        assert redis.primary.client().dbsize() == 0
    assert "s3cr" not in caplog.text


async def test_a_primary_that_hangs_is_left_for_the_next_one(
    tmp_path: Path, open_store: Callable[[str], Awaitable[RedisStore]]
) -> None:
    """Nothing closes its connections; and the replica had not heard of all: at most twice the burst passes."""
    with Watched(tmp_path / "watched") as redis:
        store = await open_store(redis.url())
        before = await passed(store, 4)
        redis.primary.freeze()
        before += await passed(store, 3)
        assert not store.connected
        await asyncio.to_thread(redis.fail_over, redis.primary.freeze)
        await connected(store)
        redis.primary.resume()
        assert BURST <= before + await passed(store, 30) <= 2 * BURST
        assert await passed(store, 5) == 0


# -- a cluster ---------------------------------------------------------------------------------------------------------

SLOT = "{llmproxy}:t:acme:rpm"


async def test_in_a_cluster_whose_slots_move_and_whose_nodes_die(
    stage: Stage,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    open_store: Callable[[str], Awaitable[RedisStore]],
    guard: Guard | None,
) -> None:
    with Cluster(tmp_path / "cluster", guard) as redis:
        proxy, key = await enforced(stage, redis.url())
        store = await open_store(redis.url())
        assert await passed(store, 3) == 3
        # The slots of the limits and of the keys move to another node and back, with requests on the way.
        home = redis.owner(SLOT)
        for target in (2, home):
            await asyncio.to_thread(redis.migrate, SLOT, target)
            await asyncio.to_thread(redis.migrate, "{keys}", target)
            assert await passed(store, 1) == 1
            await connected(store)
            new = await run(redis.url(), "create", f"new-{target}", "--tier", "many")
            await answered(stage, proxy, new, 200)
        assert (await ask(stage, proxy, key)) == 200
        # Its node dies, and the replica takes its place.
        await asyncio.to_thread(redis.heard_all)
        redis.nodes[home].kill()
        await until(lambda: not store.connected, "the loss")
        assert await passed(store, 2) == 2
        await until(lambda: redis.owner(SLOT) == 3, "the replica in its place", timeout_s=20)
        await connected(store)
        assert await passed(store, 20) == BURST - 7
        new = await run(redis.url(), "create", "last", "--tier", "many")
        await answered(stage, proxy, new, 200)
    assert "s3cr" not in caplog.text


async def test_in_a_cluster_that_user_is_enough_too(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Cluster(tmp_path / "cluster") as redis:
        for node in redis.nodes:
            node.client().execute_command("ACL", "SETUSER", "narrow", *documented_rights())
        await enforced(stage, redis.url().replace("cluster://", "cluster://narrow:narrow@"))
    assert "NOPERM" not in caplog.text


async def test_keys_are_made_and_heard_of_while_their_slot_is_on_the_way(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Cluster(tmp_path / "cluster") as redis:
        proxy, key = await enforced(stage, redis.url())
        loop = asyncio.get_running_loop()
        made: list[str] = []

        async def make() -> None:
            made.append(await run(redis.url(), "create", "between", "--tier", "many"))
            await answered(stage, proxy, made[0], 200)
            assert await ask(stage, proxy, key) == 200

        def between() -> None:
            asyncio.run_coroutine_threadsafe(make(), loop).result(20)

        target = (redis.owner("{keys}") + 1) % 3
        await asyncio.to_thread(redis.migrate, "{keys}", target, between)
        await until(lambda: redis.owner("{keys}") == target, "the other node")
        for new in (*made, await run(redis.url(), "create", "after", "--tier", "many")):
            await answered(stage, proxy, new, 200)


async def test_while_its_slot_is_on_the_way_nobody_waits(
    tmp_path: Path, open_store: Callable[[str], Awaitable[RedisStore]]
) -> None:
    with Cluster(tmp_path / "cluster") as redis:
        store = await open_store(redis.url())
        assert await passed(store, 3) == 3
        loop = asyncio.get_running_loop()
        on_the_way: list[int] = []

        def between() -> None:
            on_the_way.append(asyncio.run_coroutine_threadsafe(passed(store, 4), loop).result(20))

        await asyncio.to_thread(redis.migrate, SLOT, 1, between)
        await until(lambda: redis.owner(SLOT) == 1, "the other node")
        await connected(store)
        assert on_the_way == [4]
        assert await passed(store, 20) == BURST - 7
