"""Why a request goes where it goes: the policy's own figures, for one request's answer and for whoever asks ahead.

`X-LLMProxy-Debug: route` on a request asks for `X-LLMProxy-Route` on its answer. It is there where
`server.debug_headers` allows it, and for whoever sends the admin token; for others nothing says that it exists. What a
request without that header pays for all this is one look at an attribute when a backend has been chosen.
"""

import hmac
import json
import logging
import math
from collections.abc import Sequence
from typing import Any, Final

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Explaining
from llmproxy.core.prompt import Prompt
from llmproxy.core.request import Request
from llmproxy.pipeline import body as bodies
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.prompts import prompt_of
from llmproxy.pipeline.site import Site
from llmproxy.pipeline.snapshot import ServingPool

HEADER_MAX_BYTES: Final = 3000
"""Of the value: clients and the proxies before this one take heads of some kilobytes."""

log = logging.getLogger("llmproxy")


def explain_choice(x: Exchange, pool: ServingPool, candidates: Sequence[Backend], chosen: Backend, now: float) -> None:
    """Note for the answer why `x` is sent to `chosen`, if its client may know. What fails here fails no request."""
    try:
        if x.view is not None and _may_know(x):
            x.explained = b"X-LLMProxy-Route: %b\r\n" % _in_a_line(
                x, pool, weighed(pool, candidates, x.view, now), chosen
            )
    except Exception:
        log.exception("pool %s: the choice of a backend could not be explained", pool.name)


def asked(site: Site, body: bytes, model: str | None = None, prompt_bytes: int = 0) -> Request:
    """A request as routing would see it: from the JSON `body` of one, or from what is known of it. Raises
    `BadRequest`."""
    if body:
        named = bodies.decode(body).model
        model = model or (named if isinstance(named, str) else None)
        prompt = prompt_of(body, model, site.prefix_secret)
    else:
        prompt = Prompt(prompt_bytes)
    target = site.snapshot.models.get(model) if model is not None else None
    return Request(
        model=model if target is None or target.rewrite is None else target.rewrite,
        body_bytes=len(body) or prompt_bytes,
        field=lambda name: bodies.find_field(body, name) if body else None,
        prompt=lambda: prompt,
    )


def decision(pool: ServingPool, request: Request, now: float) -> dict[str, Any]:
    """What would become of `request`. Changes nothing; a policy that cannot explain itself is not asked to pick."""
    eligible = pool.health.candidates(now)
    candidates = [backend for backend in eligible if backend.has_room]
    pick = reason = None
    if candidates and isinstance(pool.routing, Explaining):
        pick = pool.routing.pick(candidates, request, now).id
        reason = request.reason or None
    return {
        "pool": pool.name,
        "policy": pool.settings.policy.name,
        "model": request.model,
        "prompt_bytes": request.prompt.size,
        "pick": pick,
        "reason": reason,
        "candidates": weighed(pool, candidates, request, now) if candidates else [],
        "left_out": [
            {"backend": backend.id, "why": "full" if backend in eligible else backend.status.value}
            for backend in pool.backends
            if backend not in candidates
        ],
    }


def weighed(pool: ServingPool, candidates: Sequence[Backend], request: Request, now: float) -> list[dict[str, Any]]:
    """The candidates with the policy's terms, the best first; without terms where it has none to tell."""
    routing = pool.routing
    terms = routing.explain(candidates, request, now) if isinstance(routing, Explaining) else [{} for _ in candidates]
    rows = [
        {
            "backend": backend.id,
            "in_flight": backend.load.in_flight,
            "weight": backend.weight,
            **{name: value for name, value in _in_ms(one).items() if name != "in_flight"},
        }
        for backend, one in zip(candidates, terms, strict=True)
    ]
    return sorted(rows, key=_rank)


def _may_know(x: Exchange) -> bool:
    request = x.request
    if b"route" not in [word.strip().lower() for word in request.debug.split(b",")]:
        return False
    if x.snapshot.bounds.debug_headers:
        return True
    token, given = x.snapshot.config.admin.token, request.header(b"x-llmproxy-admin-token")
    return bool(token) and given is not None and hmac.compare_digest(given.strip(), token.encode())


def _in_a_line(x: Exchange, pool: ServingPool, rows: list[dict[str, Any]], chosen: Backend) -> bytes:
    """As many rows as fit, that of the chosen one first."""
    said = {
        "pool": pool.name,
        "policy": pool.settings.policy.name,
        "pick": chosen.id,
        "reason": (x.view.reason if x.view is not None else "") or None,
        "attempt": x.attempts + 1,
        "candidates": len(rows),
    }
    head = json.dumps(said)[:-1].encode()
    told: list[bytes] = []
    left = HEADER_MAX_BYTES - len(head)
    for row in sorted(rows, key=lambda row: row["backend"] != chosen.id):
        text = json.dumps(row).encode()
        left -= len(text) + 2
        if left < 0:
            break
        told.append(text)
    return b'%b, "best": [%b]}' % (head, b", ".join(told))


def _in_ms(terms: dict[str, float]) -> dict[str, float | None]:
    """Seconds as milliseconds, all figures rounded, in the order given; JSON has no infinity."""
    timed = any(_is_time(name) for name in terms)
    told: dict[str, float | None] = {}
    for name, value in terms.items():
        if _is_time(name) or (timed and name == "cost"):
            name, value = name.removesuffix("_s") + "_ms", value * 1e3
        told[name] = round(value, 3) if math.isfinite(value) else None
    return told


def _is_time(name: str) -> bool:
    return name.endswith("_s") and not name.endswith("_per_s")


def _rank(row: dict[str, Any]) -> float:
    for name, sign in (("cost_ms", 1.0), ("cost", 1.0), ("score", -1.0)):
        if row.get(name) is not None:
            return sign * float(row[name])
    return 0.0
