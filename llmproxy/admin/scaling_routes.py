"""The scaling part of the admin API. Who may ask is `guard.py`'s business; that a reason is given is asked for here."""

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from llmproxy.admin.alerts import WHY_MAX, Alert, alerts_of, is_encodable, is_from_alertmanager
from llmproxy.admin.errors import AdminError
from llmproxy.control.registrations import Registrations
from llmproxy.control.scaling.autoscalers import EVERYWHERE, Autoscalers, seconds

DEFAULT_FOR_S = 3600.0
TTL_S = 60.0
REGISTERED = frozenset({"url", "id", "weight", "max_concurrency", "price_per_hour", "spot"})
"""What an instance may say of itself, as under `backends`."""
_FLOOR_KEYS = frozenset({"replicas", "min", "for", "in", "why"})


class ScalingRoutes:
    """The handlers, over what the application has. `who(headers)` names whoever asks, for the audit log; `advise(pool)`
    replays its traffic, and raises ValueError where there is nothing to say."""

    def __init__(
        self,
        scaling: Autoscalers,
        registrations: Registrations,
        who: Callable[[Mapping[str, str]], str],
        advise: Callable[[str], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._advise = advise
        self._who = who
        self._scaling = scaling
        self._registrations = registrations

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/admin/scaling", self.pools),
            web.post("/admin/scaling/pause", self.pause),
            web.post("/admin/scaling/resume", self.resume),
            web.get("/admin/scaling/{pool}", self.pool),
            web.get("/admin/scaling/{pool}/decisions", self.decisions),
            web.get("/admin/scaling/{pool}/recommendations", self.recommendations),
            web.post("/admin/scaling/{pool}/event", self.event),
            web.delete("/admin/scaling/{pool}/event", self.clear),
            web.post("/admin/pools/{pool}/backends", self.register),
            web.delete("/admin/pools/{pool}/backends/{id}", self.unregister),
        ]

    async def pools(self, request: web.Request) -> web.Response:
        return web.json_response({"pools": [self._scaling.view(name) for name in self._scaling.scalers]})

    async def pool(self, request: web.Request) -> web.Response:
        return web.json_response(self._scaling.view(self._pool(request.match_info["pool"])))

    async def decisions(self, request: web.Request) -> web.Response:
        pool = self._pool(request.match_info["pool"])
        return web.json_response({"decisions": self._scaling.scalers[pool].parts.decisions.shown()})

    async def recommendations(self, request: web.Request) -> web.Response:
        """Replica-hours that could be dropped; takes as long as a replay."""
        pool = self._pool(request.match_info["pool"])
        try:
            return web.json_response({"pool": pool, **await self._advise(pool)})
        except ValueError as error:
            raise AdminError(409, "nothing_to_say", str(error)) from None

    async def pause(self, request: web.Request) -> web.Response:
        """`{"pool": "llama", "why": "..."}`; without a pool everywhere."""
        body = await _body(request)
        pool = self._pool_or_all(body)
        self._scaling.pause(pool, self._who(request.headers), _why(body))
        return await self._told({"paused": pool})

    async def resume(self, request: web.Request) -> web.Response:
        body = await _body(request)
        pool = self._pool_or_all(body)
        self._scaling.resume(pool, self._who(request.headers), _why(body))
        return await self._told({"resumed": pool})

    async def _told(self, answer: dict[str, Any]) -> web.Response:
        """200 when it holds for every proxy; 202 when Redis is away, so that it holds here, and for the others when it
        is back."""
        everywhere = await self._scaling.kept()
        return web.json_response({**answer, "told_all_proxies": everywhere}, status=200 if everywhere else 202)

    async def event(self, request: web.Request) -> web.Response:
        """`{"replicas": 6, "in": "10m", "for": "1h", "why": "launch"}`, or what Alertmanager sends (`alerts.py`)."""
        body = await _body(request)
        # Whenever something was waited for, a reload may have taken the pool away.
        pool, who = self._pool(request.match_info["pool"]), self._who(request.headers)
        wrong: list[str] = []
        try:
            if is_from_alertmanager(body):
                alerts, wrong = alerts_of(body)
                wrong += self._alerts(pool, who, alerts)
            else:
                self._floor(pool, who, body)
        except ValueError as error:
            raise AdminError(422, "invalid_event", str(error)) from None
        told = await self._scaling.events_told(pool)
        if wrong:
            raise AdminError(422, "invalid_event", "; ".join(wrong))
        return web.json_response(self._scaling.view(self._pool(pool)), status=201 if told else 202)

    def _alerts(self, pool: str, who: str, alerts: Sequence[Alert]) -> list[str]:
        """What kept some of them from taking effect."""
        wrong = []
        for alert in alerts:
            if alert.replicas is None:
                self._scaling.end_event(pool, who, alert.why, alert.id)
                continue
            try:
                self._scaling.event(pool, who, alert.why, replicas=alert.replicas, for_s=alert.for_s, id=alert.id)
            except ValueError as error:
                wrong.append(f"{alert.id}: {error}")
        return wrong

    def _floor(self, pool: str, who: str, body: Mapping[str, Any]) -> None:
        unknown = body.keys() - _FLOOR_KEYS
        if unknown:
            known = ", ".join(sorted(_FLOOR_KEYS))
            raise AdminError(422, "invalid_event", f"unknown key {sorted(unknown)[0]!r} (known: {known})")
        replicas = body.get("replicas", body.get("min"))
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise AdminError(422, "invalid_event", "replicas must be a whole number")
        for_s, in_s = _duration(body, "for", DEFAULT_FOR_S), _duration(body, "in", 0.0)
        self._scaling.event(pool, who, _why(body), replicas=replicas, for_s=for_s, in_s=in_s)

    async def clear(self, request: web.Request) -> web.Response:
        """All floors of the pool; `{"why": "..."}` is for the audit log."""
        why = _why(await _body(request))
        pool = self._pool(request.match_info["pool"])
        cleared = self._scaling.clear_events(pool, self._who(request.headers), why)
        told = await self._scaling.events_told(pool)
        return web.json_response({"cleared": cleared}, status=200 if told else 202)

    async def register(self, request: web.Request) -> web.Response:
        """`{"url": "http://10.0.0.5:8000", "ttl": "60s"}`, and what else is in `REGISTERED`: a backend for as long as
        it says so again within `ttl`."""
        body = await _body(request)
        ttl_s = _duration(body, "ttl", TTL_S)
        settings = {key: value for key, value in body.items() if key in REGISTERED}
        unknown = body.keys() - settings.keys() - {"ttl", "why"}
        if unknown:
            raise AdminError(422, "invalid_backend", f"unknown key {sorted(unknown)[0]!r}")
        try:
            id = self._registrations.register(request.match_info["pool"], settings, ttl_s, self._who(request.headers))
        except KeyError:
            raise AdminError(404, "pool_not_found", f"there is no pool {request.match_info['pool']!r}") from None
        except ValueError as error:
            raise AdminError(422, "invalid_backend", str(error)) from None
        return web.json_response({"id": id, "ttl_s": ttl_s}, status=201)

    async def unregister(self, request: web.Request) -> web.Response:
        pool, id = request.match_info["pool"], request.match_info["id"]
        if not self._registrations.unregister(pool, id, self._who(request.headers)):
            raise AdminError(404, "backend_not_found", f"nobody registered {id!r} in pool {pool!r}")
        return web.json_response({"removed": id})

    def _pool(self, name: object) -> str:
        if not isinstance(name, str) or name not in self._scaling.scalers:
            known = ", ".join(sorted(self._scaling.scalers)) or "none"
            raise AdminError(404, "pool_not_found", f"no pool {name!r} is scaled, only: {known}")
        return name

    def _pool_or_all(self, body: Mapping[str, Any]) -> str:
        name = body.get("pool", EVERYWHERE)
        return EVERYWHERE if name == EVERYWHERE else self._pool(name)


async def _body(request: web.Request) -> Mapping[str, Any]:
    """A JSON object; nothing at all is an empty one."""
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise AdminError(400, "bad_request", "the body must be a JSON object")
    return body


def _why(body: Mapping[str, Any]) -> str:
    why = body.get("why", "")
    if not isinstance(why, str) or len(why) > WHY_MAX or not is_encodable(why):
        raise AdminError(422, "invalid_reason", f"why must be Unicode text of at most {WHY_MAX} characters")
    return why


def _duration(body: Mapping[str, Any], key: str, default_s: float) -> float:
    if key not in body:
        return default_s
    try:
        found = seconds(body[key])
    except ValueError as error:
        raise AdminError(422, "invalid_duration", f"{key}: {error}") from None
    if not math.isfinite(found):
        raise AdminError(422, "invalid_duration", f"{key} must be finite")
    return found
