"""What no part of the configuration can know alone: references, names that must differ, ports that must not clash.

Each check yields the path and the message of what is wrong. They run on a draft, so a mistake in one pool hides
nothing about the others.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from llmproxy.config.auth_checks import check_auth, tiers_named
from llmproxy.config.backend import BackendConfig
from llmproxy.config.draft import Draft
from llmproxy.config.messages import did_you_mean
from llmproxy.config.model import AdminConfig, Config, PolicyConfig, PoolConfig, ServerConfig
from llmproxy.config.problem import Path
from llmproxy.config.quota import BudgetsConfig, built_in_tiers
from llmproxy.config.scaling import ScalingConfig, ScalingPolicyConfig, places

Finding = tuple[Path, str]
PolicyCheck = Callable[[PolicyConfig | ScalingPolicyConfig], Iterable[tuple[str, str]]]
"""Says what is wrong with a policy: pairs of an option's name ("" for the policy itself) and a message."""


def cross_check(draft: Draft, check_policy: PolicyCheck | None) -> Iterator[Finding]:
    """Everything wrong between the parts of `draft`."""
    yield from _references(draft)
    yield from _somewhere_to_go(draft)
    yield from _unique_backends(draft)
    yield from _unique_routes(draft)
    yield from _ports(draft)
    yield from check_auth(draft)
    yield from _tiers(draft)
    yield from _queries(draft)
    if check_policy is not None:
        yield from _policies(draft, check_policy)


def _references(draft: Draft) -> Iterator[Finding]:
    pools = [str(path[1]) for path in draft.entries(("pools",))]
    for entry in chain(draft.entries(("models",)), draft.entries(("routes",))):
        path = (*entry, "pool")
        name = draft.raw(path)
        if isinstance(name, str) and pools and name not in pools:
            yield path, f"there is no pool {name!r}{did_you_mean(name, pools)}"


def _somewhere_to_go(draft: Draft) -> Iterator[Finding]:
    pools = draft.entries(("pools",))
    if len(pools) > 1 and not draft.raw(("models",)) and not draft.raw(("routes",)):
        yield ("pools",), "with more than one pool, `models` (or `routes`) must say what goes where"


def _unique_backends(draft: Draft) -> Iterator[Finding]:
    """Ids name backends in metrics, logs, headers and the admin API, across all pools."""
    seen: dict[str, str] = {}
    for pool in draft.entries(("pools",)):
        for path in draft.entries((*pool, "backends")):
            backend = draft.part(BackendConfig, path)
            if backend is None:
                continue
            spec = backend.spec(str(pool[1]))
            if spec.id not in seen:
                seen[spec.id] = str(pool[1])
            elif backend.id is None:
                yield path, "this backend is in the pool already"
            else:
                yield (*path, "id"), f"the id {spec.id!r} is taken by a backend of pool {seen[spec.id]!r}"


def _unique_routes(draft: Draft) -> Iterator[Finding]:
    seen = set()
    for entry in draft.entries(("routes",)):
        path = (*entry, "path")
        prefix = draft.raw(path)
        if not isinstance(prefix, str):
            continue
        bare = prefix.rstrip("/")
        if bare in seen:
            yield path, f"there is a route for {prefix!r} already"
        seen.add(bare)


def _ports(draft: Draft) -> Iterator[Finding]:
    server = draft.part(ServerConfig, ("server",))
    admin = draft.part(AdminConfig, ("admin",))
    if server is None or admin is None or not server.port or server.port != admin.port:
        return
    if server.host == admin.host or {server.host, admin.host} & {"0.0.0.0", "::", ""}:
        yield ("admin", "port"), f"{admin.port} is the public port already (server.port)"


def _tiers(draft: Draft) -> Iterator[Finding]:
    known = [*built_in_tiers(), *(str(path[1]) for path in draft.entries(("tiers",)))]
    for path, name in tiers_named(draft):
        if name not in known:
            yield path, f"there is no tier {name!r}{did_you_mean(name, known)}"
    priced = bool(draft.entries(("limits", "prices")))
    for entry in chain(draft.entries(("tiers",)), draft.entries(("keys",))):
        path = (*entry, "budgets") if entry[0] == "tiers" else (*entry, "limits", "budgets")
        budgets = draft.part(BudgetsConfig, path)
        if budgets is None or priced:
            continue
        for name in ("cost_per_day", "cost_per_month"):
            if getattr(budgets, name) is not None:
                yield (*path, name), "nothing costs anything without limits.prices"
    models = [str(path[1]) for path in draft.entries(("models",))]
    for tier in draft.entries(("tiers",)):
        for path in draft.entries((*tier, "models")):
            if models and path[-1] not in models:
                yield path, f"there is no model {path[-1]!r}{did_you_mean(str(path[-1]), models)}"


def _queries(draft: Draft) -> Iterator[Finding]:
    """Signals from outside that a scaling policy looks at, and nobody asks for."""
    for pool in draft.entries(("pools",)):
        known = [str(path[-1]) for path in draft.entries((*pool, "scaling", "prometheus"))]
        if isinstance(draft.raw((*pool, "scaling", "prometheus", "url")), str):
            known = ["query"]
        for entry in draft.entries((*pool, "scaling", "policies")):
            for path, text in _texts(entry, draft.raw(entry)):
                for name in dict.fromkeys(_named(path, text)):
                    if name not in known:
                        hint = did_you_mean(name, known)
                        yield path, f"scaling.prometheus has no query {name!r}{hint}: nothing would ever come of it"


def _named(path: Path, text: str) -> list[str]:
    """The queries that an option names. Where it is a signal and no condition, a name may have `-` and `.` in it."""
    if path[-1] == "signal":
        return [text.removeprefix("prometheus.")] if text.startswith("prometheus.") else []
    return re.findall(r"\bprometheus\.(\w+)", text)


def _texts(path: Path, value: Any) -> Iterator[tuple[Path, str]]:
    """What is written in the options of a policy, and where."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts((*path, str(key)), inner)


def _policies(draft: Draft, check_policy: PolicyCheck) -> Iterator[Finding]:
    for pool in draft.entries(("pools",)):
        path = (*pool, "policy")
        policy = draft.part(PolicyConfig, path)
        if policy is None:
            continue
        written = draft.raw(path)
        options = (*path, "options") if isinstance(written, Mapping) and "options" in written else path
        for option, message in check_policy(policy):
            yield ((*options, option) if option else path), message
        for entry in draft.entries((*pool, "scaling", "policies")):
            scaling = draft.part(ScalingPolicyConfig, entry)
            if scaling is not None:
                yield from _scaling_policy(draft, entry, scaling, check_policy)


def _scaling_policy(
    draft: Draft, entry: Path, policy: ScalingPolicyConfig, check_policy: PolicyCheck
) -> Iterator[Finding]:
    written = draft.raw(entry)
    options: Path = entry
    if isinstance(written, Mapping):
        options = (*entry, "options" if "options" in written else policy.name)
    for option, message in check_policy(policy):
        yield ((*options, option) if option else options), message


def _scaling_advice(path: Path, pool: PoolConfig, scaling: ScalingConfig) -> Iterator[Finding]:
    cold_start_s = scaling.cold_start
    if scaling.min == 0 and cold_start_s is not None and pool.queue.wait < cold_start_s:
        yield (*path, "queue", "wait"), "shorter than cold_start: who comes when there is no replica is turned away"
    found = places(scaling)
    if scaling.warm_pool.size >= min(scaling.max, scaling.max if found is None else found):
        yield (*path, "scaling", "warm_pool", "size"), "max counts the warm pool too: none is left to serve"
    if found is not None and found < scaling.max:
        yield (*path, "scaling", "max"), f"more than the {found} engines there are GPUs or ports for: they are the most"
    budget = scaling.budget
    tiers = scaling.tiers_of_capacity
    without_price = not tiers or any(tier.price_per_hour is None for tier in tiers)
    if budget is not None and "price_per_hour" not in budget.model_fields_set and without_price:
        counted = f"{budget.price_per_hour:g} {budget.currency}"
        yield (*path, "scaling", "budget"), f"without price_per_hour each replica is taken to cost {counted} an hour"
    if budget is not None and budget.per_hour is not None and not tiers:
        pays_for = int(budget.per_hour / budget.price_per_hour + 1e-9)
        if pays_for < max(scaling.min, 1):
            what = f"{pays_for} at once, and min is {scaling.min}" if pays_for else "no replica at all"
            yield (*path, "scaling", "budget", "per_hour"), f"pays for {what}"
    forgets = scaling.actuator.kind == "webhook" and not scaling.history and not scaling.redis
    if budget is not None and budget.per_month is not None and forgets:
        what = "what is spent of it is forgotten at each restart: name a file in `history`, or a `redis`"
        yield (*path, "scaling", "budget", "per_month"), what
    if scaling.max_concurrency is None:
        yield (
            (*path, "scaling", "max_concurrency"),
            "without it nobody waits here, and only the engines know their queues",
        )


def advice(config: Config) -> Iterator[Finding]:
    """What is valid but rarely meant. Few, and each worth a look."""
    if not config.checks_keys and not config.auth.anonymous:
        for section in ("tiers", "limits"):
            if section in config.model_fields_set:
                yield (section,), "nobody is limited: there are no keys, and no tier in auth.anonymous"
    used = {model.pool for model in config.models.values()} | {route.pool for route in config.routes}
    for name, pool in config.pools.items():
        path: Path = ("pools", name)
        timeouts = pool.timeouts
        if len(config.pools) > 1 and name not in used:
            yield path, "no model and no route leads here, so it gets no requests"
        if timeouts.keepalive >= 5:
            yield (*path, "timeouts", "keepalive"), "vLLM closes idle connections at 5s: requests will meet closed ones"
        if timeouts.first_byte == 0 and timeouts.total == 0:
            yield (*path, "timeouts", "first_byte"), "off, and so is total: a hung engine holds its requests for ever"
        if timeouts.between_bytes == 0:
            yield (*path, "timeouts", "between_bytes"), "off: an engine that stalls in mid-answer is never noticed"
        if 0 < timeouts.total <= timeouts.first_byte:
            yield (*path, "timeouts", "total"), "not longer than first_byte: requests end before that can pass"
        if pool.scaling is not None:
            yield from _scaling_advice(path, pool, pool.scaling)
    for alias, model in config.models.items():
        target = config.models.get(model.rewrite) if model.rewrite is not None else None
        path = ("models", alias, "rewrite")
        if target is None:
            continue
        if model.rewrite == alias:
            yield path, "the model's own name: leave it out"
        elif target.rewrite is not None and target.rewrite != model.rewrite:
            yield path, f"{model.rewrite!r} is an alias too, and is sent as it is: write {target.rewrite!r}"
        elif target.pool != model.pool:
            yield path, f"{model.rewrite!r} is served by pool {target.pool!r}, but this goes to {model.pool!r}"
