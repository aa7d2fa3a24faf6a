"""A request from its first byte to its account, top to bottom."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from llmproxy.core.backend import Backend
from llmproxy.core.errors import BadRequest, ProxyError, Unavailable, UpstreamFailed
from llmproxy.core.lease import Lease
from llmproxy.core.step import Steps
from llmproxy.pipeline.account import Account
from llmproxy.pipeline.answer import error_answer
from llmproxy.pipeline.answering import refuse
from llmproxy.pipeline.attempt import attempt
from llmproxy.pipeline.classify import classify, resolve
from llmproxy.pipeline.cors import is_preflight, preflight_lines
from llmproxy.pipeline.exchange import Exchange, Phase
from llmproxy.pipeline.explain import explain_choice
from llmproxy.pipeline.heartbeat import expect
from llmproxy.pipeline.learn_prompt import learn_prompt
from llmproxy.pipeline.links import Links
from llmproxy.pipeline.local import LocalAnswers
from llmproxy.pipeline.metering import ask, let_pass, settle
from llmproxy.pipeline.permit import permit
from llmproxy.pipeline.prompt_tier import size_up, that_fit
from llmproxy.pipeline.response_ids import ResponseIds, id_in_path
from llmproxy.pipeline.room import Room, priority
from llmproxy.pipeline.routes import Dialect, Local, Route
from llmproxy.pipeline.site import Site
from llmproxy.pipeline.snapshot import ServingPool, Snapshot
from llmproxy.pipeline.tries import Tries
from llmproxy.telemetry.metrics import Metrics
from llmproxy.wire.client import ClientConnection
from llmproxy.wire.deadlines import Deadlines
from llmproxy.wire.inbound import InboundRequest

log = logging.getLogger("llmproxy")


async def serve(handler: "Handler", x: Exchange) -> None:
    """The whole story of a request that goes to a backend."""
    try:
        classify(x)
        if x.identity is not None and x.identity.models is not None:
            permit(x, x.identity)
        target = resolve(x, handler.maker(x) if x.route.responses and not (x.model or x.route.pool) else None)
        pool = target.pool
        room = handler.room(pool)
        tries = Tries(x, target)
        limiter, charge = handler.limiter, None
        pool.retries.request_started()
        try:
            if limiter is not None and x.identity is not None:
                charge = ask(limiter, x, x.identity)
                if charge.pending is not None:
                    await charge.answer()
                let_pass(x, charge)
            if target.terms.tiers:
                size_up(x, target)
            if target.terms.learns_prompts:
                learn_prompt(x, pool.name)
            if target.terms.heartbeat_s:
                expect(x, target.terms.heartbeat_s)
            while True:
                backend = handler.choose(x, pool, room, tries.tried)
                if backend is None:
                    backend = await wait_for_room(handler, x, pool, room, tries)
                handler.chosen(x, pool, tries.tried, backend)
                lease = Lease(backend, room.freed)
                with lease:
                    again = await attempt(x, target, lease, tries)
                if not again:
                    return
        finally:
            tries.close()
            pool.retries.request_ended()
            if limiter is not None and charge is not None:
                settle(x, charge, limiter.unix_ms(handler.clock()))
    except ProxyError as error:
        refuse(x, error)


async def wait_for_room(handler: "Handler", x: Exchange, pool: ServingPool, room: Room, tries: Tries) -> Backend:
    """Stand in line until it is this request's turn. Raises `ProxyError`."""
    began = handler.clock()
    x.phase = Phase.QUEUED
    try:
        restricted = bool(tries.tried) or x.route.responses or bool(x.prompt_tokens)
        if x.needs_tier:
            pool.awaited[x.needs_tier] = pool.awaited.get(x.needs_tier, 0) + 1
        return await room.wait(x, lambda: handler.choose_in_turn(x, pool, tries.tried), restricted=restricted)
    finally:
        if x.needs_tier:
            pool.awaited[x.needs_tier] -= 1
        waited = handler.clock() - began
        x.queue_s += waited
        handler.metrics.queue(pool.name).observe(waited)
        x.phase = Phase.STARTING


class Handler(Site):
    """The pipeline of one proxy: implements the wire's `RequestHandler`."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        deadlines: Deadlines,
        links: Links,
        metrics: Metrics,
        account: Account,
        local: LocalAnswers,
    ) -> None:
        super().__init__(snapshot, clock=clock, deadlines=deadlines, links=links, metrics=metrics)
        self.response_ids = ResponseIds()
        self.exchanges = 0
        self._loop = loop
        self._account = account
        self._local = local
        self._rooms: dict[str, Room] = {}

    # -- the wire's side -------------------------------------------------------------------------------------------

    def plan_body(self, request: InboundRequest) -> int:
        """On the head: is the route open, and how is the body taken? Raises `ProxyError`."""
        snapshot = self.snapshot
        bounds = snapshot.bounds
        method = request.method
        if method == b"OPTIONS" and is_preflight(request):
            request.tag = Route(b"/", has_model=False, local=Local.HEALTH)
            return bounds.body_max_bytes
        if method == b"CONNECT":
            raise BadRequest("CONNECT is not served here", code="method_not_allowed", status=405)
        route = request.tag = snapshot.routes.match(request.raw_path)
        if self.gate is not None and route.local is not Local.HEALTH:
            request.identity = self.gate.admit(request.authorization, request.headers)
        if request.upgrade == b"websocket":
            raise BadRequest("WebSocket is not supported", code="upgrade_not_supported", status=501)
        content_type = request.content_type
        if content_type[:1] in b"mM" and content_type[:10].lower() == b"multipart/":
            known = request.content_length
            request.overflows = known is None
            return bounds.multipart_max_bytes if known is None or known <= bounds.multipart_max_bytes else -1
        if route.json or b"json" in content_type or not (request.content_length or request.chunked):
            return bounds.body_max_bytes
        return -1

    def begin(self, connection: ClientConnection, request: InboundRequest) -> Exchange | None:
        """A request is there: answer it here, or set its story going."""
        snapshot = self.snapshot
        x = Exchange(self, snapshot, connection, request)
        self.exchanges += 1
        if x.route.local is not None:
            return self._begin_local(x)
        x.steps = steps = Steps(serve(self, x), partial(self.ended, x))
        steps.resume()
        return None if steps.ended else x

    def refuse(self, connection: ClientConnection, request: InboundRequest, error: ProxyError) -> None:
        """Refused on the wire: the head or the body is no good."""
        dialect = request.tag.dialect if isinstance(request.tag, Route) else Dialect.OPENAI
        request_id = request.request_id or self.ids.new()
        headers = b"X-Request-Id: %b\r\n%b" % (request_id, self.cors(self.snapshot, request))
        bodyless = request.method == b"HEAD"
        connection.write(
            error_answer(error, dialect, keep_alive=False, minor=request.minor, headers=headers, bodyless=bodyless)
        )
        self._account.refused(connection, request, error, request_id, self.clock())

    # -- the story's side ------------------------------------------------------------------------------------------

    def room(self, pool: ServingPool) -> Room:
        """Where requests for `pool` wait for a place."""
        room = self._rooms.get(pool.name)
        if room is None or room.pool is not pool:
            room = self._rooms[pool.name] = Room(pool, self._loop, self.clock, self.deadlines)
        return room

    def forget(self, pool: str) -> None:
        """A pool is gone; whoever waits there is told so."""
        room = self._rooms.pop(pool, None)
        if room is not None:
            room.close()

    def choose(self, x: Exchange, pool: ServingPool, room: Room, tried: list[Backend]) -> Backend | None:
        """A backend for the next attempt; None when it has to wait for one. Raises `Unavailable`."""
        if pool.bounded:
            if room.crowded:
                return None
            backend = self.choose_in_turn(x, pool, tried)
            if x.view is not None and pool.queue.minds_priority:
                x.view.priority = priority(x)
            if backend is None or x.view is None or not pool.queue.admit(backend, x.view, pool.backends, x.chosen_at):
                return None
            return backend
        now = x.chosen_at = self.clock()
        candidates = self._eligible(x, pool, tried, now)
        if not candidates:
            if self._may_come(x, pool, tried, now):
                return None
            raise Unavailable("no backend is available for this request", retry_after_s=5)
        assert x.view is not None
        return pool.routing.pick(candidates, x.view, now)

    def chosen(self, x: Exchange, pool: ServingPool, tried: list[Backend], backend: Backend) -> None:
        """Tell why it is this one."""
        assert x.view is not None
        if x.view.reason:
            self.metrics.decisions[pool.name, x.view.reason] += 1
        if x.request.debug:
            explain_choice(x, pool, self._eligible(x, pool, tried, x.chosen_at), backend, x.chosen_at)

    def choose_in_turn(self, x: Exchange, pool: ServingPool, tried: list[Backend]) -> Backend | None:
        """The same where there are limits, but for who else waits; None when all it may use are full, or are on the
        way."""
        now = x.chosen_at = self.clock()
        candidates = self._eligible(x, pool, tried, now)
        if not candidates:
            if self._may_come(x, pool, tried, now):
                return None
            raise Unavailable("no backend is available for this request", retry_after_s=5)
        candidates = [backend for backend in candidates if backend.has_room]
        assert x.view is not None
        return pool.routing.pick(candidates, x.view, now) if candidates else None

    def _eligible(self, x: Exchange, pool: ServingPool, tried: list[Backend], now: float) -> Sequence[Backend]:
        """The backends that may be given `x`, with room or without."""
        candidates = pool.health.candidates(now)
        if x.route.responses and (maker := self.maker(x)) is not None and maker in pool.backends:
            candidates = [backend for backend in candidates if backend is maker]
        if x.prompt_tokens:
            candidates = that_fit(candidates, x.prompt_tokens)
        if tried:
            candidates = [backend for backend in candidates if backend not in tried]
        return candidates

    def _may_come(self, x: Exchange, pool: ServingPool, tried: list[Backend], now: float) -> bool:
        """Whether a backend for it may come that is not there: nobody untried is, and somebody adds some."""
        return pool.elastic and all(one in tried for one in that_fit(pool.health.candidates(now), x.prompt_tokens))

    def ended(self, x: Exchange, failure: BaseException | None) -> None:
        """The story is over, however it ended: tell of it, and let the connection go on."""
        x.phase = Phase.OVER
        if failure is not None:
            log.error("request %s failed inside the proxy", x.id.decode(), exc_info=failure)
            refuse(x, UpstreamFailed("the proxy failed on this request", status=500, code="internal_error", close=True))
        reader = x.reader
        if reader is not None and reader.response_id is not None and x.backend is not None:
            self.response_ids.remember(reader.response_id, x.backend, self.clock())
        x.drop_payload()
        self._account.ended(x, self.clock())
        # The client's connection is closed already when it was the client who left.
        x.connection.finish(x.request, x.keep_alive)
        # Without reference cycles a request's memory is free, and warm in the cache, for the next one.
        x.relay = x.reader = x.steps = x.view = None

    def maker(self, x: Exchange) -> Backend | None:
        """The backend that made the response this request is about."""
        response_id = id_in_path(x.route.path)
        if response_id is None and isinstance(x.body.previous_response_id, str):
            response_id = x.body.previous_response_id.encode()
        return None if response_id is None else self.response_ids.maker(response_id)

    def _begin_local(self, x: Exchange) -> Exchange | None:
        request, connection = x.request, x.connection
        cors = x.snapshot.config.server.cors
        headers = b"X-Request-Id: %b\r\n" % x.id
        headers += preflight_lines(cors, request) if is_preflight(request) else self.cors(x.snapshot, request)
        self._local.answer(x, headers)
        x.drop_payload()
        self._account.ended(x, self.clock())
        connection.finish(request, x.keeps_alive)
        return None
