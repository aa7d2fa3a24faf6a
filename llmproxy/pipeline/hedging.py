"""Hedging: a second attempt elsewhere beside one whose first token is unusually late; the quicker one answers.

Whether there may be one is decided by `policy/admission/hedge.py`. The story of a request (`attempt`) waits for
its own attempt only. A `Chase` runs beside it, with a place, a connection, a reader and a view of the request of its
own. When it has a first token it ends the wait, and the story goes on with it: `settle` puts it where the slower
attempt was. When it fails, nobody notices. When the story's attempt ends in any other way, the chase is given up.
"""

import logging

from llmproxy.core.backend import Backend
from llmproxy.core.lease import Lease
from llmproxy.core.outcome import LABELS, Outcome
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.core.step import Steps
from llmproxy.pipeline.exchange import NEVER, Exchange
from llmproxy.pipeline.heads import request_head
from llmproxy.pipeline.links import Link
from llmproxy.pipeline.prompt_tier import that_fit
from llmproxy.pipeline.readers import AnswerReader
from llmproxy.pipeline.room import priority
from llmproxy.pipeline.snapshot import Target
from llmproxy.policy.admission.ticket import Band
from llmproxy.wire.answer_head import AnswerHead
from llmproxy.wire.connections import UpstreamLost
from llmproxy.wire.fields import HeaderList
from llmproxy.wire.relay import Reader, Relay
from llmproxy.wire.upstream import UpstreamConnection

log = logging.getLogger("llmproxy")


def chase(x: Exchange, target: Target, lease: Lease) -> "Chase | None":
    """What will start a second attempt for `x`, which has just been sent; None where there is to be none."""
    after_s: float | None = target.pool.queue.hedges.after_s()
    if after_s is None or x.attempts > 1 or x.view is None or not x.view.stream:
        return None
    if x.request.streamed or not x.route.retryable or x.route.responses or priority(x) >= Band.BATCH:
        return None
    return Chase(x, target, lease, x.sent_at + after_s)


class Chase:
    """One request's second attempt. The owner of its relay, and the watcher of its reader."""

    def __init__(self, x: Exchange, target: Target, lease: Lease, deadline: float) -> None:
        self._x = x
        self._target = target
        self._slower = lease
        self._steps: Steps | None = None
        self._lease: Lease | None = None
        self._trial = False
        self._view: Request | None = None
        self._link: Link | None = None
        self._relay: Relay | None = None
        self._reader: AnswerReader | None = None
        self._head: AnswerHead | None = None
        self._sent_at = 0.0
        self._first_at = 0.0
        self.won = False
        self.deadline = deadline
        x.site.deadlines.add(self)

    def expired(self, now: float) -> None:
        """The first token is late."""
        self.deadline = NEVER
        backend = self._choose(now)
        if backend is None:
            return
        x, pool = self._x, self._target.pool
        lease = self._lease = Lease(backend, self._slower.on_free)
        lease.__enter__()
        self._trial = pool.health.chosen(backend, now)
        x.site.metrics.hedges[pool.name, "sent"] += 1
        self._steps = Steps(self._run(backend), self._ended)
        self._steps.resume()

    def close(self) -> None:
        """The other attempt has its first token, or has ended; nothing happens where this one has won."""
        self._x.site.deadlines.discard(self)
        if self._steps is not None and not self.won:
            self._steps.cancel()

    def settle(self, trial: bool, relay: Relay) -> tuple[bool, Relay]:
        """The wait is over: which relay to go on with, and whether its attempt is its backend's trial. Given are those
        of the story's own attempt."""
        self.close()
        return self._take_over(trial) if self.won else (trial, relay)

    # -- from the relay and the reader -----------------------------------------------------------------------------

    def answer_begins(self, relay: Relay) -> Reader:
        """The engine's head is here."""
        self._head = relay.connection.head
        reader = self._reader = self._x.reader_of(relay.connection, self)
        return reader

    def informational(self, status: int, headers: HeaderList) -> None:
        """Of no interest: the client may have had the other engine's."""

    def first(self, now: float) -> None:
        """The first piece of the body that counts."""
        self._first_at = now
        pool, lease = self._target.pool, self._lease
        if pool.learns and lease is not None and self._view is not None:
            pool.observe(Moment.FIRST_TOKEN, lease.backend, self._view, now)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _take_over(self, trial: bool) -> tuple[bool, Relay]:
        """Stand in for the slower attempt, from now on in its lease; its account is closed."""
        x, pool, lease, relay = self._x, self._target.pool, self._lease, self._relay
        assert lease is not None
        assert relay is not None
        now = x.site.clock()
        slower = self._slower.backend
        pool.health.observe(slower, Outcome.ABANDONED, now, trial=trial)
        if pool.learns and x.view is not None:
            x.view.tokens = None
            pool.observe(Moment.FAILED, slower, x.view, now)
        x.site.metrics.attempts[pool.name, slower.id, LABELS[Outcome.ABANDONED]] += 1
        x.site.metrics.hedges[pool.name, "won"] += 1
        self._slower.backend, lease.backend = lease.backend, slower
        lease.__exit__(None, None, None)
        x.backend, x.link, x.view = self._slower.backend, self._link, self._view
        x.relay, x.reader, x.answer_head = relay, self._reader, self._head
        x.sent_at, x.first_at = self._sent_at, self._first_at
        x.attempts += 1
        x.explained = b""
        return self._trial, relay

    def _choose(self, now: float) -> Backend | None:
        """Where to; None where there is no need, no room or no budget."""
        x, pool = self._x, self._target.pool
        taken = self._slower.backend
        if x.relay is None or x.relay.ready.done or x.first_at or x.view is None:
            return None
        candidates = [each for each in pool.health.candidates(now) if each.has_room and each is not taken]
        if x.prompt_tokens:
            candidates = list(that_fit(candidates, x.prompt_tokens))
        saturated = pool.queue.waiting > 0 or not candidates
        hedges = pool.queue.hedges
        if not hedges.try_hedge(now - x.sent_at, saturated=saturated):
            return None
        view = self._view = _another(x, x.view)
        backend = pool.routing.pick(candidates, view, now)
        if pool.bounded and not pool.queue.admit(backend, view, pool.backends, now):
            hedges.give_back()
            return None
        return backend

    async def _run(self, backend: Backend) -> None:
        outcome = Outcome.ABANDONED
        connection: UpstreamConnection | None = None
        try:
            terms = self._target.terms
            link = self._link = self._x.site.links.of(backend, terms.connect_s, terms.keepalive_s)
            connection = link.connections.take() or await _connect(link)
            relay = self._send(backend, link, connection)
            outcome = self._judge(await relay.ready)
            self.won = outcome is Outcome.OK and connection.status == 200
        except UpstreamLost as lost:
            outcome = lost.outcome
        finally:
            if not self.won:
                if self._relay is not None:
                    self._relay.abort()
                elif connection is not None:
                    connection.abort()
                self._give_up(backend, outcome)
        slower = self._x.relay
        if self.won and slower is not None:
            slower.abort()
            slower.ready.set(None)

    def _send(self, backend: Backend, link: Link, connection: UpstreamConnection) -> Relay:
        x, pool = self._x, self._target.pool
        relay = self._relay = Relay(self, connection)
        now = self._sent_at = x.site.clock()
        if connection.reused:
            x.site.reused += 1
        connection.send(relay, request_head(x, self._target, link), x.payload, bodyless=False)
        if pool.learns and self._view is not None:
            pool.observe(Moment.SENT, backend, self._view, now)
        return relay

    def _judge(self, lost_by: Outcome | None) -> Outcome:
        """What it has come to when there is a first token, or none to come."""
        reader, relay = self._reader, self._relay
        if lost_by is not None or reader is None or relay is None:
            return lost_by or Outcome.RESET
        if relay.connection.status in (429, 503):
            return Outcome.BUSY
        return Outcome.SERVER_ERROR if relay.connection.status >= 500 else reader.failure or Outcome.OK

    def _give_up(self, backend: Backend, outcome: Outcome) -> None:
        x, pool, lease = self._x, self._target.pool, self._lease
        now = x.site.clock()
        pool.health.observe(backend, outcome, now, trial=self._trial)
        if pool.learns and self._view is not None:
            pool.observe(Moment.FAILED, backend, self._view, now)
        x.site.metrics.attempts[pool.name, backend.id, LABELS[outcome]] += 1
        if lease is not None:
            lease.__exit__(None, None, None)

    def _ended(self, error: BaseException | None) -> None:
        if error is not None:
            log.error("request %s failed inside the proxy at its second attempt", self._x.id.decode(), exc_info=error)


async def _connect(link: Link) -> UpstreamConnection:
    connecting = link.connections.connect()
    try:
        return await connecting.signal
    except BaseException:
        connecting.cancel()
        raise


def _another(x: Exchange, view: Request) -> Request:
    """The same request, to be placed a second time: policies keep their notes of a placement in it."""
    another = Request(
        id=view.id,
        method=view.method,
        path=view.path,
        model=view.model,
        stream=view.stream,
        client_ip=view.client_ip,
        headers=view.headers,
        body_bytes=view.body_bytes,
        arrived=view.arrived,
        field=x.find_field,
        prompt=lambda: view.prompt,
        identity=view.identity,
        priority=view.priority,
    )
    another.share = view.share
    return another
