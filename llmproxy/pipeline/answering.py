"""What the client gets: the engine's answer, an error in its place, or an end for an answer that breaks off."""

from llmproxy.core.errors import ProxyError
from llmproxy.pipeline.answer import error_answer, error_event
from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.exchange import NEVER, Exchange
from llmproxy.pipeline.heads import answer_head
from llmproxy.pipeline.heartbeat import carry_on, end
from llmproxy.pipeline.readers import AnswerReader
from llmproxy.wire.relay import Relay
from llmproxy.wire.upstream import NO_HEAD


def commit(x: Exchange, relay: Relay, reader: AnswerReader) -> None:
    """Send the engine's head and what is held of its body; from now on the answer is this one. Raises `ProxyError`
    when a head has gone out that it does not fit."""
    if x.begun:
        head, framing = b"", carry_on(x, relay, reader)
    else:
        x.status = relay.connection.status
        head, framing = answer_head(x, relay)
        if x.explained or x.limits:
            head = head[:-2] + x.limits + x.explained + b"\r\n"
        x.keep_alive = x.keeps_alive
    x.beat_at = NEVER
    x.answered = reader.committed = True
    relay.commit(x.connection, head, framing)
    x.drop_payload()
    x.answer_head = None
    if relay.ended is not None:
        relay.connection.head = NO_HEAD


def refuse(x: Exchange, error: ProxyError) -> None:
    """Answer with an error of the proxy's own, or, when the answer has begun, end it as one."""
    x.error = error
    if x.answered:
        _break_off(x, error)
        return
    if x.begun:
        end(x, error)
        return
    request = x.request
    x.status = error.status
    x.answered = True
    headers = b"X-Request-Id: %b\r\n%b%b%b" % (x.id, x.limits, x.explained, x.site.cors(x.snapshot, request))
    if error.close:
        request.keep_alive = False
    x.keep_alive = x.keeps_alive
    answer = error_answer(
        error,
        x.route.dialect,
        keep_alive=x.keep_alive,
        minor=request.minor,
        headers=headers,
        bodyless=request.method == b"HEAD",
    )
    x.connection.write(answer)


def _break_off(x: Exchange, error: ProxyError) -> None:
    """The answer cannot be finished: say so in an event-stream, cut any other body."""
    relay = x.relay
    if (
        relay is None
        or not isinstance(x.reader, EventReader)
        or not relay.say_last(error_event(error, x.route.dialect))
    ):
        x.connection.abort()
