"""One attempt at a backend: a connection, the request on it, and the answer's way to the client."""

from llmproxy.core.backend import Backend
from llmproxy.core.lease import Lease
from llmproxy.core.outcome import LABELS, Outcome
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.pipeline.answering import commit
from llmproxy.pipeline.exchange import Exchange, Phase
from llmproxy.pipeline.heads import request_head
from llmproxy.pipeline.hedging import Chase, chase
from llmproxy.pipeline.links import Link
from llmproxy.pipeline.snapshot import ServingPool, Target
from llmproxy.pipeline.tries import Tries
from llmproxy.pipeline.upload import Upload
from llmproxy.wire.connections import UpstreamLost
from llmproxy.wire.relay import Relay
from llmproxy.wire.upstream import UpstreamConnection


async def attempt(x: Exchange, target: Target, lease: Lease, tries: Tries) -> bool:
    """Send the request to the lease's backend and pass its answer on. True when it is to be tried again elsewhere.
    Raises `ProxyError` when it failed for good. The backend's health hears of it on every path."""
    site, pool, terms, backend = x.site, target.pool, target.terms, lease.backend
    x.backend = backend
    x.attempts += 1
    trial = pool.health.chosen(backend, x.chosen_at)
    outcome = verdict = Outcome.ABANDONED
    connection: UpstreamConnection | None = None
    relay: Relay | None = None
    hedge: Chase | None = None
    try:
        link = x.link = site.links.of(backend, terms.connect_s, terms.keepalive_s)
        connection = None if tries.fresh else link.connections.take()
        if connection is None:
            try:
                connection = await connect(x, link)
            except UpstreamLost as lost:
                outcome = verdict = lost.outcome
                if tries.again(outcome, reused=False) is not None:
                    return True
                raise tries.failure(outcome) from None
        relay = send(x, target, link, connection)
        hedge = chase(x, target, lease) if terms.hedges else None
        lost_by = await relay.ready
        if hedge is not None:
            trial, relay = hedge.settle(trial, relay)
            backend, connection = lease.backend, relay.connection
        outcome = verdict = tries.judge(relay, lost_by)
        if outcome is not Outcome.OK:
            again = tries.again(outcome, reused=connection.reused and not connection.head_done)
            if again is not None:
                verdict = again
                return True
            if not tries.may_pass_on(relay, lost_by):
                raise tries.failure(outcome)
        x.phase = Phase.RELAYING
        assert x.reader is not None
        commit(x, relay, x.reader)
        if relay.ended is not None:
            x.arm(site.clock(), terms.between_bytes_s)
            # Until it has ended, leaving is all that can happen to it.
            outcome = verdict = Outcome.ABANDONED
            ended = await relay.ended
            outcome = verdict = tries.judge_end(relay, ended)
            if ended is not Outcome.OK:
                raise tries.failure(outcome)
        return False
    finally:
        x.outcome = outcome
        if hedge is not None:
            hedge.close()
        if relay is not None:
            relay.abort()
        elif connection is not None:
            # Nothing was sent on it, and nobody else knows of it.
            connection.abort()
        now = site.clock()
        pool.health.observe(backend, verdict, now, trial=trial, retry_after_s=tries.retry_after_s)
        if pool.learns and x.view is not None:
            learn(x, x.view, pool, backend, outcome, now)
        site.metrics.attempts[pool.name, backend.id, LABELS[outcome]] += 1


def learn(x: Exchange, view: Request, pool: ServingPool, backend: Backend, outcome: Outcome, now: float) -> None:
    """Tell those who learn from it how an attempt ended."""
    view.tokens = x.reader.tokens.counts() if x.reader is not None else None
    pool.observe(Moment.FINISHED if outcome is Outcome.OK else Moment.FAILED, backend, view, now)


async def connect(x: Exchange, link: Link) -> UpstreamConnection:
    """Open a connection. Raises `UpstreamLost`."""
    x.phase = Phase.CONNECTING
    connecting = link.connections.connect()
    x.waiting = connecting.signal
    try:
        return await connecting.signal
    except BaseException:
        connecting.cancel()
        raise
    finally:
        x.waiting = None


def send(x: Exchange, target: Target, link: Link, connection: UpstreamConnection) -> Relay:
    """Put the request on a connection; the relay is ready when there is something of an answer to decide about."""
    site, request = x.site, x.request
    relay = x.relay = Relay(x, connection)
    x.reader = x.answer_head = None
    now = x.sent_at = site.clock()
    if connection.reused:
        site.reused += 1
    if x.attempts == 1:
        site.metrics.overhead.observe(now - request.arrived - x.queue_s)
    head = request_head(x, target, link)
    bodyless = request.method == b"HEAD"
    if request.streamed:
        x.phase = Phase.UPLOADING
        connection.send(relay, head, b"", bodyless=bodyless, whole=False)
        Upload(x, relay).start()
    else:
        x.phase = Phase.ANSWER
        x.arm(now, target.terms.answer_s)
        connection.send(relay, head, x.payload, bodyless=bodyless)
    if target.pool.learns and x.backend is not None and x.view is not None:
        target.pool.observe(Moment.SENT, x.backend, x.view, now)
    return relay
