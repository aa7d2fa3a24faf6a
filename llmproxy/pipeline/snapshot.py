"""What a request captures of the configuration when it starts: replaced whole on reload, never changed."""

import ipaddress
from collections.abc import Mapping

from llmproxy.config.model import Config, PoolConfig
from llmproxy.core.backend import Backend
from llmproxy.core.errors import BadRequest, NotFound
from llmproxy.core.identity import Identity, anonymous
from llmproxy.core.pool import Pool
from llmproxy.pipeline.routes import Route, RouteTable
from llmproxy.pipeline.terms import Bounds, Terms

_ADDRESS_MAX = 64
_ANONYMOUS_MAX = 10_000
ServingPool = Pool[PoolConfig]


class Target:
    """Where a model's requests go, and under which name."""

    __slots__ = ("pool", "rewrite", "terms")

    def __init__(self, pool: ServingPool, rewrite: str | None = None, *, checks_keys: bool = False) -> None:
        self.pool = pool
        self.rewrite = rewrite
        self.terms = Terms(pool.settings, checks_keys)


class Snapshot:
    """The configuration as requests see it. `only` is every model's target when there is one pool and no `models:`,
    `rest` the target of the route for `/`: of requests that no model and no other route sends anywhere."""

    __slots__ = (
        "_anonymous",
        "_trusted",
        "anonymous_tier",
        "bounds",
        "by_pool",
        "config",
        "models",
        "networks",
        "only",
        "pools",
        "priorities",
        "rest",
        "routes",
    )

    def __init__(self, config: Config, pools: Mapping[str, ServingPool]) -> None:
        self.config = config
        self.pools = pools
        self.bounds = Bounds(config.server)
        self.anonymous_tier = config.auth.anonymous
        self.priorities = {name: tier.priority for name, tier in config.all_tiers.items()}
        checks = config.checks_keys
        self.by_pool = {name: Target(pool, checks_keys=checks) for name, pool in pools.items()}
        self.models = {
            name: Target(pools[model.pool], model.rewrite if model.rewrite != name else None, checks_keys=checks)
            for name, model in config.models.items()
        }
        self.only = next(iter(self.by_pool.values())) if len(pools) == 1 and not self.models else None
        routes = {route.path: route.pool for route in config.routes}
        self.rest = self.by_pool[routes["/"]] if "/" in routes else None
        self.routes = RouteTable(config.server.allow_routes, routes)
        self.networks = tuple(ipaddress.ip_network(item, strict=False) for item in config.server.trusted_proxies)
        self._trusted: dict[str, bool] = {}
        self._anonymous: dict[str, Identity] = {}

    def target(self, route: Route, model: str | None) -> Target:
        """The pool for a request. Raises `NotFound` for an unknown model and `BadRequest` for a missing one."""
        if route.pool is not None:
            return self.by_pool[route.pool]
        if self.only is not None:
            return self.only
        if model is not None and (self.models or self.rest is None):
            target = self.models.get(model)
            if target is None:
                raise NotFound(f"The model `{model[:200]}` does not exist.", code="model_not_found", param="model")
            return target
        if len(self.pools) == 1:
            return next(iter(self.by_pool.values()))
        if self.rest is not None:
            return self.rest
        if route.has_model:
            raise BadRequest("you must provide a model parameter", code="missing_model", param="model")
        if route.responses:
            raise NotFound("it is not known which backend made this response", code="response_not_found")
        raise NotFound("this route needs a pool: add it under `routes:`", code="route_not_found")

    def anonymous(self, ip: str) -> Identity:
        """Who asks from `ip` without a key: the same object while it is remembered, so that limits find it fast."""
        known = self._anonymous.get(ip)
        if known is None:
            known = anonymous(ip, self.anonymous_tier)
            if len(ip) <= _ADDRESS_MAX:
                if len(self._anonymous) >= _ANONYMOUS_MAX:
                    self._anonymous.clear()
                self._anonymous[ip] = known
        return known

    def home(self, backend: Backend) -> Target | None:
        """The pool that `backend` is in."""
        return next((target for target in self.by_pool.values() if backend in target.pool.backends), None)

    def is_trusted(self, ip: str) -> bool:
        """Whether `ip` may speak for other clients in X-Forwarded-*."""
        if not self.networks:
            return False
        known = self._trusted.get(ip)
        if known is None:
            if len(ip) > _ADDRESS_MAX:
                # Not an address, and not to be remembered: clients write these as long as they like.
                return False
            address = _address(ip)
            known = address is not None and any(address in network for network in self.networks)
            if len(self._trusted) < 10000:
                self._trusted[ip] = known
        return known

    def client_ip(self, peer_ip: str, forwarded_for: bytes | None) -> str:
        """The client's address: the peer's, or the nearest one in X-Forwarded-For that is not a trusted proxy."""
        if forwarded_for is None or not self.is_trusted(peer_ip):
            return peer_ip
        client = peer_ip
        for item in reversed(forwarded_for.decode("latin-1").split(",")):
            client = _without_port(item.strip()) or client
            if not self.is_trusted(client):
                break
        return client


def _without_port(item: str) -> str:
    """An address as proxies write it, some with the client's port: `192.0.2.1:50000`, `[2001:db8::1]:50000`. With it,
    each connection would be somebody else."""
    if item.startswith("["):
        return item[1:].partition("]")[0]
    host, _, port = item.partition(":")
    return host if port.isdecimal() and "." in host else item


def _address(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    # A socket that listens on IPv6 sees IPv4 clients like this.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
