"""A redis-py client for a URL, for what is asked rarely: keys, commands of operators."""

from typing import Any

from llmproxy.core.redis_url import Topology, parse_redis_url

TIMEOUT_S = 2.5
"""Of any one command; longer than the second that listening for changes waits."""


def client_of(url: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """A `redis.asyncio` client that gives bytes, connects when first used and tries nothing twice: whoever uses it
    knows better when to. `await client.aclose()` ends it. Raises ValueError for a bad URL."""
    from redis.asyncio import Redis, RedisCluster, Sentinel
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    where = parse_redis_url(url)
    common: dict[str, Any] = {
        "username": where.username or None,
        "password": where.password or None,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
    if where.tls:
        common |= {"ssl": True, "ssl_ca_certs": where.ca_file or None}
    if where.topology is Topology.CLUSTER:
        nodes = [ClusterNode(host, port) for host, port in where.addresses]
        return RedisCluster(startup_nodes=nodes, **common)
    common["retry"] = Retry(NoBackoff(), 0)
    if where.topology is Topology.SENTINEL:
        own = {"password": where.sentinel_password or None, "socket_timeout": timeout_s}
        make: Any = Sentinel
        sentinel = make(list(where.addresses), sentinel_kwargs=own, **common)
        return sentinel.master_for(where.master, db=where.database)
    [(host, port)] = where.addresses
    return Redis(host=host, port=port, db=where.database, **common)
