"""Requests of one session go to one backend, where their prefix is still in the KV cache, unless it is overloaded."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.least_connections import LeastConnections
from llmproxy.policy.routing.options import NoOptions
from llmproxy.policy.routing.recent_sessions import RecentSessions
from llmproxy.policy.routing.rendezvous import Rendezvous, digest

_DEFAULT_HEADERS = ("x-session-id",)
_DEFAULT_FIELDS = ("session_id", "prompt_cache_key", "user")


@dataclass(frozen=True, slots=True)
class SessionAffinityOptions:
    """Where the session's name stands: the first that is given and not empty, headers before cookies before fields.

    With none of the three configured: header `X-Session-ID`, then the fields `session_id`, `prompt_cache_key`, `user`.
    """

    header: tuple[str, ...] = ()
    cookie: tuple[str, ...] = ()
    field: tuple[str, ...] = ()
    """Top-level fields of the JSON body."""
    load_bound: float = 1.25
    """A backend takes at most this multiple of its fair share of the requests in flight; beyond it, the session's next
    choice takes over."""

    def __post_init__(self) -> None:
        if self.load_bound < 1.0:
            raise ValueError("load_bound must be 1 or more: below it no backend could take its fair share")
        for name in self.header:
            if not name.isascii():
                raise ValueError(f"header {name!r} is not a header's name")


class SessionAffinity:
    """Weighted rendezvous hashing with bounded load; a request without a session goes to the least loaded backend.
    It remembers where sessions were sent for the autoscaler, which spares their backends."""

    __slots__ = ("_bound", "_cookies", "_fields", "_headers", "_recent", "_rendezvous", "_sessionless")
    options_type: ClassVar = SessionAffinityOptions

    def __init__(self, options: SessionAffinityOptions, rng: random.Random) -> None:
        chosen = bool(options.header or options.cookie or options.field)
        self._headers = options.header if chosen else _DEFAULT_HEADERS
        self._cookies = options.cookie
        self._fields = options.field if chosen else _DEFAULT_FIELDS
        self._bound = options.load_bound
        self._rendezvous = Rendezvous()
        self._recent = RecentSessions()
        self._sessionless = LeastConnections(NoOptions(), rng)

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        session = self.session(request)
        if session is None:
            request.note = None
            request.reason = "load"
            return self._sessionless.pick(candidates, request, now)
        total_weight = 0.0
        in_flight = 1
        for backend in candidates:
            total_weight += backend.weight
            in_flight += backend.load.in_flight
        per_weight = self._bound * in_flight / total_weight
        # Rounding up leaves room somewhere: the shares add up to at least what is in flight with this request.
        roomy = [backend for backend in candidates if backend.load.in_flight < ceil(per_weight * backend.weight)]
        request.reason = "session" if len(roomy) == len(candidates) else "bounded"
        # Unless load_bound is 1 and the shares come out a last place too low.
        name = request.note = digest(session)
        return self._rendezvous.first(name, roomy or candidates)

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        # Of two attempts at once the later is sent elsewhere, and the session stays where the answer comes from.
        if moment in (Moment.SENT, Moment.FIRST_TOKEN) and isinstance(request.note, int):
            self._recent.sent(request.note, backend, now)

    def sessions(self, now: float) -> Mapping[str, int]:
        return self._recent.live(now)

    def session(self, request: Request) -> str | None:
        """The session's name, or None."""
        for name in self._headers:
            if value := request.header(name):
                return value
        for name in self._cookies:
            if value := request.cookie(name):
                return value
        for name in self._fields:
            if value := request.field(name):
                return value
        return None

    def forget(self, backend: Backend) -> None:
        self._rendezvous.forget(backend)
        self._sessionless.forget(backend)
        self._recent.forget(backend)
