"""What is told of a request when it is over: counters, and a line in the access log. Once for each, on every path."""

from collections.abc import Callable
from typing import Literal

from llmproxy.core.errors import ProxyError
from llmproxy.core.outcome import LABELS, Outcome
from llmproxy.pipeline.exchange import Exchange
from llmproxy.telemetry.access_log import AccessLog
from llmproxy.telemetry.metrics import NONE, Metrics
from llmproxy.telemetry.record import AccessRecord, PromptRecord
from llmproxy.telemetry.tenants import ANONYMOUS
from llmproxy.wire.client import ClientConnection
from llmproxy.wire.inbound import InboundRequest

CLIENT_LEFT = 499


class Account:
    """`access_log` is None when it is switched off; `wall` gives Unix seconds."""

    def __init__(self, metrics: Metrics, access_log: AccessLog | None, wall: Callable[[], float]) -> None:
        self.metrics = metrics
        self._access_log = access_log
        self._wall = wall

    def ended(self, x: Exchange, now: float) -> None:
        """An exchange is over."""
        metrics, series, reader, request = self.metrics, x.series, x.reader, x.request
        outcome, identity = x.outcome, x.identity
        backend = x.backend.id if x.backend is not None else NONE
        status = x.status or CLIENT_LEFT
        metrics.requests[series.pool, series.model, backend, status] += 1
        duration_s = now - request.arrived
        series.duration.observe(duration_s)
        prompt = completion = cached = None
        source: Literal["usage", "chunks"] | None = None
        if reader is not None:
            if x.first_at and x.body.stream is True:
                series.ttft.observe(x.first_at - request.arrived)
            tokens = reader.tokens
            prompt, completion, cached = tokens.prompt, tokens.completion, tokens.cached
            if prompt is not None or completion is not None:
                source = "usage"
                series.prompt_tokens += prompt or 0
                series.completion_tokens += completion or 0
                series.cached_tokens += cached or 0
            elif tokens.events:
                source, completion = "chunks", tokens.counted(outcome is Outcome.OK)
                series.completion_tokens += completion
        error = x.error
        tenant = NONE
        if identity is not None:
            tenant = ANONYMOUS if identity.anonymous else identity.tenant
            metrics.tenants.count(tenant, status, prompt or 0, completion or 0)
        if metrics.usage.is_priced and x.sent_at and backend != NONE:
            label = NONE if identity is None else metrics.tenants.label(tenant)
            who = series.pool, series.model, label
            metrics.usage.count(who, (prompt or 0) + (completion or 0), now - x.sent_at)
        if error is not None:
            metrics.errors[error.code, error.blame.value] += 1
            if error.status == 503 and x.sent_at == 0.0:
                metrics.shed[series.pool, error.code] += 1
        elif outcome is Outcome.ABANDONED and x.target is not None:
            metrics.abandoned[series.pool] += 1
        for cause in x.causes:
            metrics.retries[series.pool, cause] += 1
        log = self._access_log
        if log is None:
            return
        record = AccessRecord(
            self._wall(),
            x.id.decode("latin-1"),
            x.connection.peer_ip if x.view is None else x.view.client_ip,
            request.method.decode("latin-1"),
            request.raw_path,
            series.pool,
            x.model,
            backend,
            status,
            x.body.stream is True,
            millis(x.first_at - request.arrived) if x.first_at else None,
            millis(duration_s),
            millis(x.queue_s) if x.queue_s else None,
            prompt,
            completion,
            cached,
            source,
            x.attempts,
            x.causes,
            request.body_bytes,
            x.relay.bytes_out if x.relay is not None else 0,
            _how_it_ended(x),
            None if error is None else error.code,
            None if identity is None else identity.tenant,
            None if identity is None else identity.key_name or None,
        )
        if x.site.prefix_secret and x.view is not None:
            record = PromptRecord.of(record, x.view.prompt.blocks)
        log.append(record)

    def refused(
        self, connection: ClientConnection, request: InboundRequest, error: ProxyError, request_id: bytes, now: float
    ) -> None:
        """A request was refused on the wire."""
        identity = request.identity
        self.metrics.requests[NONE, NONE, NONE, error.status] += 1
        self.metrics.errors[error.code, error.blame.value] += 1
        if self._access_log is not None:
            self._access_log.append(
                AccessRecord(
                    self._wall(),
                    request_id.decode("latin-1"),
                    connection.peer_ip,
                    request.method.decode("latin-1"),
                    request.raw_path,
                    status=error.status,
                    duration_ms=millis(now - request.arrived),
                    bytes_in=request.body_bytes,
                    outcome="refused",
                    error=error.code,
                    tenant=None if identity is None else identity.tenant,
                    key=None if identity is None else identity.key_name or None,
                )
            )


def _how_it_ended(x: Exchange) -> str:
    """The log's word for it. Where there was no attempt, it is not always the client who left."""
    if x.outcome is not Outcome.ABANDONED or x.attempts:
        return LABELS[x.outcome]
    if x.error is not None:
        return "refused"
    return "ok" if x.target is None else "abandoned"


def millis(seconds: float) -> float:
    """Milliseconds, to the microsecond. (`round` costs five times as much.)"""
    return int(seconds * 1e6 + 0.5) / 1e3
