"""Signs of life for a stream whose first token is long in coming: comments, behind a head of our own.

The middle one of the three states of the client's side: our head and comments are out, nothing of an engine is. A
failure is still tried elsewhere; what cannot be mended ends the body with an error event, as the status has been told.
The engine's own head is not sent any more, and its body must be an event-stream, or become one.
"""

import json
from math import ceil
from typing import Any, Final

from llmproxy.core.errors import EngineSaid, ProxyError, UpstreamFailed
from llmproxy.pipeline.answer import error_event, status_line
from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.exchange import ENDS_WITH_DONE, Exchange, Phase
from llmproxy.pipeline.readers import AnswerReader, WholeReader
from llmproxy.pipeline.routes import Dialect
from llmproxy.policy.admission.ticket import Ticket
from llmproxy.wire.relay import Framing, Relay

_EVENT_STREAMS: Final = ENDS_WITH_DONE | {b"/v1/messages", b"/v1/responses"}
_EVENT_STREAM: Final = b"Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"


def expect(x: Exchange, every_s: float) -> None:
    """Let comments go to `x`'s client every `every_s` from its arrival on, if it waits for a stream."""
    if x.body.stream is True and x.route.path in _EVENT_STREAMS and x.request.method == b"POST":
        x.beat = beat
        x.beat_at = x.request.arrived + every_s
        x.arm(x.request.arrived, 0.0)


def beat(x: Exchange, now: float) -> None:
    """It is time for one."""
    target, connection = x.target, x.connection
    assert target is not None
    x.beat_at = now + target.terms.heartbeat_s
    if connection.write_paused:
        # It has yet to take what it was sent before.
        return
    data = _framed(x, _comment(x, now))
    if not x.begun:
        data = _begin(x) + data
    connection.write(data)
    x.site.metrics.heartbeats[target.pool.name] += 1


def carry_on(x: Exchange, relay: Relay, reader: AnswerReader) -> Framing:
    """The engine's answer is there: how its body goes on behind our head. Raises `EngineSaid`."""
    status = relay.connection.status
    if not isinstance(reader, EventReader):
        whole = relay.complete and isinstance(reader, WholeReader)
        said = _decoded(relay.held) if whole else None
        if said is None or status >= 300:
            raise EngineSaid(status if status >= 400 else 502, _error_said(x, status, said))
        # It had its reasons not to stream; what it says is not lost.
        event = _event(said)
        relay.replace(event + b"data: [DONE]\n\n" if x.route.path in ENDS_WITH_DONE else event)
    return Framing.CHUNKED if x.request.minor else Framing.CLOSE


def end(x: Exchange, error: ProxyError) -> None:
    """Nothing comes of it: end the body with an error event."""
    x.answered = True
    if error.close:
        x.keep_alive = False
    event = error.event if isinstance(error, EngineSaid) else error_event(error, x.route.dialect)
    data = _framed(x, event)
    x.connection.write(data + b"0\r\n\r\n" if x.request.minor else data)


def _begin(x: Exchange) -> bytes:
    """The head, sent before anybody knows who will answer."""
    request = x.request
    length = b"Transfer-Encoding: chunked\r\n"
    if not request.minor:
        length = b""
        request.keep_alive = False
    x.begun = True
    x.status = 200
    x.keep_alive = x.keeps_alive
    cors = x.site.cors(x.snapshot, request)
    connection = b"" if x.keep_alive else b"Connection: close\r\n"
    return b"%b%bX-Request-Id: %b\r\n%b%b%b%b\r\n" % (
        status_line(200), _EVENT_STREAM, x.id, x.limits, cors, length, connection,
    )  # fmt: skip


def _comment(x: Exchange, now: float) -> bytes:
    ticket = x.view.ticket if x.view is not None else None
    if x.phase is not Phase.QUEUED or not isinstance(ticket, Ticket) or not ticket.waiting or x.target is None:
        return b": waiting for the first token\n\n"
    queue = x.target.pool.queue.queue
    eta_s: float | None = queue.eta_s(ticket, now)
    eta = b"" if eta_s is None else b" eta=%ds" % ceil(eta_s)
    return b": queued position=%d%b\n\n" % (queue.position(ticket) + 1, eta)


def _framed(x: Exchange, data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if x.request.minor else data


def _decoded(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None for anything else."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _error_said(x: Exchange, status: int, said: dict[str, Any] | None) -> bytes:
    """An engine's error as an event, in its own words where it has any."""
    if said is None:
        return error_event(UpstreamFailed(f"the engine answered {status}, and no event-stream"), x.route.dialect)
    if not isinstance(said.get("error"), dict):
        said = {"error": said}
    if x.route.dialect is not Dialect.ANTHROPIC:
        return _event(said)
    return b"event: error\n" + _event({"type": "error", **said})


def _event(said: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(said).encode()
