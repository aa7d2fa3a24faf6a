"""What proxies that scale a pool share, in a Redis behind TLS and a login, behind sentinels, and in a cluster."""

import asyncio
import re
from pathlib import Path

import pytest

from llmproxy.control.actuators.base import Instance
from llmproxy.control.scaling.fleet import Fleet
from llmproxy.control.scaling.leader import RedisLeadership
from llmproxy.control.scaling.orders import Orders
from llmproxy.control.scaling.tables import SharedTable
from llmproxy.core.clock import ManualClock
from llmproxy.stores.history_redis import RedisHistory
from llmproxy.stores.redis_client import RedisClient
from tests.harness.certificates import Authority
from tests.harness.redis_fleet import Cluster, Guard, Watched
from tests.harness.redis_server import TOO_OLD, RedisServer, major_version
from tests.harness.waiting import until

pytestmark = pytest.mark.skipif(major_version() < 7, reason=TOO_OLD)

DOCS = Path(__file__).parents[2] / "docs"
POOLS = ("llama", "qwen", "gemma", "phi")
"""Enough to be on more than one node of a cluster."""


async def shared_at(url: str) -> None:
    for pool in POOLS:
        await asyncio.to_thread(_kept, url, pool)
        clients = [RedisClient(url) for _ in range(2)]
        one, other = [SharedTable(client.evaluate, f"llmproxy:scaling:{{{pool}}}:events") for client in clients]
        one.put("event", "six at noon")
        await until(one.sync, "what was put is handed over")
        await until(other.sync, "and heard")
        assert other.values == {"event": "six at noon"}
        for client in clients:
            await client.aclose()


def _kept(url: str, pool: str) -> None:
    RedisHistory(url).append(pool, [(7, (1.25, None, 3.0))], 0)
    RedisHistory(url).remember(pool, "spent", "5")
    assert RedisHistory(url).read(pool, 0) == [(7, (1.25, None, 3.0))]
    assert RedisHistory(url).fact(pool, "spent") == "5"


async def test_behind_tls_and_a_login(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with RedisServer(tmp_path / "tls", authority=authority, login=("proxy", "s3cr:t@x/y")) as server:
        await shared_at(server.url)


async def test_as_a_user_who_may_do_no_more_than_the_documents_say(tmp_path: Path) -> None:
    page = (DOCS / "actuators.md").read_text(encoding="utf-8")
    [rule] = re.findall(r"^ACL SETUSER proxy on >password ([^`]+)", page, re.MULTILINE)
    with RedisServer(tmp_path / "acl") as server:
        server.client().execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">narrow", *rule.split())
        url = server.url.replace("redis://", "redis://narrow:narrow@").replace("/0", "/1")
        await shared_at(url)
        client, fleet = RedisClient(url), Fleet()
        leader = RedisLeadership("llama", client.evaluate, clock=ManualClock(1.0))
        token = await leader.acquire()
        assert token is not None
        fleet.see([Instance("a", "http://a")], 1.0)
        base = "llmproxy:scaling:{llama}"
        said, heard = [Orders(client.evaluate, f"{base}:stages", f"{base}:fence") for _ in range(2)]
        await said.sync(token, fleet)
        await heard.sync(None, Fleet())
        assert list(heard.in_force) == ["a"]
        await leader.release()
        later = await RedisLeadership("llama", client.evaluate, clock=ManualClock(1.0)).acquire()
        assert later is not None
        assert later > token
        await client.aclose()


@pytest.fixture(params=["plain", "guarded"])
def guard(request: pytest.FixtureRequest, tmp_path: Path) -> Guard | None:
    """Without anything, and with certificates and logins for all."""
    return None if request.param == "plain" else Guard(Authority(tmp_path / "ca"), ("proxy", "s3cr:t@x/y"))


async def test_through_sentinels_over_a_failover(tmp_path: Path, guard: Guard | None) -> None:
    with Watched(tmp_path / "watched", guard=guard) as redis:
        await shared_at(redis.url())
        redis.replica_heard_all()
        await asyncio.to_thread(redis.fail_over)
        await until(lambda: asyncio.to_thread(_still_kept, redis.url()), "the next primary has it", 20.0)


def _still_kept(url: str) -> bool:
    assert RedisHistory(url).fact("llama", "spent") == "5"
    return True


async def test_in_a_cluster(tmp_path: Path, guard: Guard | None) -> None:
    with Cluster(tmp_path / "cluster", guard) as redis:
        assert len({redis.owner(f"{{{pool}}}") for pool in POOLS}) > 1
        await shared_at(redis.url())
