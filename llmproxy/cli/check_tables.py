"""What `llmproxy check` prints: a configuration as tables. Names from the file are `Text`, never markup."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from llmproxy.config import Config, PolicyConfig, PoolConfig
from llmproxy.config.units import format_duration, format_size
from llmproxy.control.live_check import Seen
from llmproxy.core.ports import ProbeResult

_COLOURS = {ProbeResult.OK: "green", ProbeResult.SLEEPING: "yellow", ProbeResult.LOADING: "yellow"}


def tables(config: Config) -> Iterator[Table]:
    """Ports, pools, scaling (if any), backends, models, routes (if any) and limits."""
    yield _ports(config)
    yield _pools(config)
    if any(pool.scaling is not None for pool in config.pools.values()):
        yield _scaling(config)
    yield _backends(config)
    yield _models(config)
    if config.routes:
        table = _table("Routes", "path prefix", "pool")
        for route in config.routes:
            _row(table, route.path, route.pool)
        yield table
    yield _limits(config)


def live_table(seen: Sequence[Seen]) -> Table:
    """What every backend answered."""
    table = _table("Asked just now", "pool", "backend", "url", "health", "time", "models")
    for one in seen:
        colour = _COLOURS.get(one.result, "red")
        health = Text(one.reason if one.result is ProbeResult.OK else f"{one.result.value}: {one.reason}", colour)
        models = ", ".join(one.models) if one.models is not None else one.remark
        table.add_row(
            Text(one.pool),
            Text(one.spec.id),
            Text(one.spec.url),
            health,
            Text(f"{one.took_s * 1e3:.0f} ms"),
            Text(models),
        )
    return table


def _ports(config: Config) -> Table:
    server, admin = config.server, config.admin
    table = _table("Ports", "what", "host", "port", "guarded by")
    guards = [*(["TLS"] if server.tls else []), *(["keys"] if config.checks_keys else [])]
    _row(table, "clients", server.host, str(server.port or "any free"), " and ".join(guards) or "nothing: plain HTTP")
    _row(table, "admin", admin.host, str(admin.port or "any free"), "a token" if admin.token else "being local only")
    return table


def _pools(config: Config) -> Table:
    table = _table("Pools", "pool", "policy", "backends", "upstream key", "attempts", "queue", "first byte", "total")
    for name, pool in config.pools.items():
        _row(
            table,
            name,
            _policy(pool.policy),
            str(len(pool.backends)) if pool.backends or pool.scaling is None else "scaled",
            _upstream_key(config, pool),
            str(pool.retry.attempts),
            f"{pool.queue.max} for {format_duration(pool.queue.wait)}",
            _limit(pool.timeouts.first_byte),
            _limit(pool.timeouts.total),
        )
    return table


def _scaling(config: Config) -> Table:
    table = _table("Scaling", "pool", "replicas", "policies", "at most", "by")
    for name, pool in config.pools.items():
        scaling = pool.scaling
        if scaling is None:
            continue
        budget = scaling.budget
        sums = () if budget is None else ((budget.per_hour, "an hour"), (budget.per_month, "a month"))
        paid = ", ".join(
            f"{amount:g} {budget.currency} {time}" for amount, time in sums if budget and amount is not None
        )
        policies = ", ".join(policy.name for policy in scaling.policies) or "demand, forecast"
        _row(table, name, f"{scaling.min} to {scaling.max}", policies, paid or "no limit", scaling.actuator.kind)
    return table


def _upstream_key(config: Config, pool: PoolConfig) -> str:
    if pool.upstream_key:
        return "set"
    return "none" if config.checks_keys and not pool.forward_authorization else "the client's"


def _backends(config: Config) -> Table:
    table = _table("Backends", "pool", "id", "url", "weight", "max concurrency")
    for name, pool in config.pools.items():
        for backend in pool.backends:
            limit = "no limit" if backend.max_concurrency is None else str(backend.max_concurrency)
            url = f"{backend.url} (each address)" if backend.resolve else backend.url
            _row(table, name, backend.spec(name).id, url, f"{backend.weight:g}", limit)
    return table


def _models(config: Config) -> Table:
    table = _table("Models", "clients ask for", "pool", "the backend gets")
    for name, model in config.models.items():
        _row(table, name, model.pool, model.rewrite or name)
    if not config.models:
        pools = list(config.pools)
        _row(table, "any name", *((pools[0], "the same name") if len(pools) == 1 else ("none", "404 model_not_found")))
    return table


def _limits(config: Config) -> Table:
    limits, timeouts = config.server.limits, config.server.timeouts
    table = _table("Limits", "what", "limit")
    for what, limit in (
        ("client connections", str(limits.connections)),
        ("request body read whole", format_size(limits.body)),
        ("multipart body read whole", format_size(limits.multipart)),
        ("all such bodies together", format_size(limits.buffered)),
        ("request head", format_size(limits.header)),
        ("request target", format_size(limits.request_line)),
        ("time for a request's head", _limit(timeouts.header)),
        ("pause in a request's body", _limit(timeouts.body)),
        ("idle client connection", _limit(timeouts.keepalive)),
        ("client not reading", _limit(timeouts.write)),
        ("drain on SIGTERM", format_duration(config.server.drain_timeout)),
    ):
        _row(table, what, limit)
    return table


def _policy(policy: PolicyConfig) -> str:
    options = ", ".join(f"{name}={value}" for name, value in policy.options.items())
    return f"{policy.name} ({options})" if options else policy.name


def _limit(seconds: float) -> str:
    return format_duration(seconds) if seconds else "off"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))
