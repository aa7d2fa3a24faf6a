"""Everything that belongs to one request in flight, and what can happen to it from outside."""

from collections.abc import Callable
from enum import Enum
from typing import Any

from llmproxy.core.backend import Backend
from llmproxy.core.enums import plain
from llmproxy.core.errors import BadRequest, ProxyError, UpstreamFailed
from llmproxy.core.outcome import Outcome
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import NO_PROMPT, Prompt
from llmproxy.core.request import Request
from llmproxy.core.step import Signal, Steps
from llmproxy.pipeline import body as bodies
from llmproxy.pipeline.answer import error_event, status_line
from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.links import Link
from llmproxy.pipeline.prompts import prompt_of
from llmproxy.pipeline.readers import AnswerReader, PlainReader, Watcher, WholeReader
from llmproxy.pipeline.routes import Route
from llmproxy.pipeline.site import Site
from llmproxy.pipeline.snapshot import Snapshot, Target
from llmproxy.wire.answer_head import AnswerHead
from llmproxy.wire.client import ClientConnection
from llmproxy.wire.fields import HeaderList
from llmproxy.wire.inbound import InboundRequest
from llmproxy.wire.relay import Reader, Relay
from llmproxy.wire.upstream import UpstreamConnection

NEVER = float("inf")
ENDS_WITH_DONE = frozenset({b"/v1/chat/completions", b"/v1/completions"})


@plain
class Phase(Enum):
    """What the exchange waits for, which decides what its deadline means."""

    STARTING = "starting"
    QUEUED = "queued"
    CONNECTING = "connecting"
    UPLOADING = "uploading"
    ANSWER = "answer"
    RELAYING = "relaying"
    OVER = "over"


class Exchange:
    """One request being answered. Implements the wire's `Exchange`, the relay's `Owner` and the readers' `Watcher`."""

    __slots__ = (
        "_held_bytes",
        "answer_head",
        "answered",
        "attempts",
        "backend",
        "beat",
        "beat_at",
        "begun",
        "body",
        "causes",
        "chosen_at",
        "connection",
        "error",
        "explained",
        "first_at",
        "id",
        "identity",
        "injects_usage",
        "keep_alive",
        "limits",
        "link",
        "model",
        "needs_tier",
        "outcome",
        "payload",
        "phase",
        "prompt_tokens",
        "queue_s",
        "reader",
        "relay",
        "request",
        "route",
        "sent_at",
        "series",
        "site",
        "snapshot",
        "status",
        "steps",
        "target",
        "total_at",
        "view",
        "waiting",
    )

    def __init__(self, site: Site, snapshot: Snapshot, connection: ClientConnection, request: InboundRequest) -> None:
        self.site = site
        self.snapshot = snapshot
        self.connection = connection
        self.request = request
        self.route: Route = request.tag
        self.identity = request.identity
        self.id = request.request_id or site.ids.new()
        self.phase = Phase.STARTING
        self.steps: Steps | None = None
        self.total_at = NEVER
        self.waiting: Signal[Any] | None = None
        # What the body says.
        self.body = bodies.Body()
        self.model: str | None = None
        self.prompt_tokens = 0.0
        """Where it does not fit the smallest tier of capacity: what a backend must take. Else 0."""
        self.needs_tier = ""
        self.payload = request.body
        self._held_bytes = request.held
        self.target: Target | None = None
        self.injects_usage = False
        self.view: Request | None = None
        # Header lines of ours for the answer.
        self.explained = b""
        self.limits = b""
        # Signs of life (`heartbeat`): when one is due, and whether a head of ours has gone out for them.
        self.beat: Callable[[Exchange, float], None] | None = None
        self.beat_at = NEVER
        self.begun = False
        # The attempt.
        self.backend: Backend | None = None
        self.link: Link | None = None
        self.relay: Relay | None = None
        self.reader: AnswerReader | None = None
        self.answer_head: AnswerHead | None = None
        self.attempts = 0
        self.causes: list[str] = []
        # The account.
        self.series = site.metrics.series(None, None)
        self.status = 0
        self.error: ProxyError | None = None
        self.outcome = Outcome.ABANDONED
        self.answered = False
        # As the answer's head has told the client, who may have sent its next request by now.
        self.keep_alive = False
        self.queue_s = 0.0
        self.chosen_at = 0.0
        self.sent_at = 0.0
        self.first_at = 0.0

    # -- from the wire ---------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """The client left."""
        if self.steps is not None:
            self.steps.cancel()

    def expired(self, now: float) -> None:
        """The deadline has passed: the total one, or the phase's own."""
        relay = self.relay
        total = now >= self.total_at
        if not total and now >= self.beat_at and self.beat is not None:
            self.beat(self, now)
        if self.phase in (Phase.ANSWER, Phase.RELAYING) and relay is not None:
            self._answer_expired(now, relay, total)
        elif self.phase is Phase.UPLOADING and relay is not None:
            self._upload_expired(relay, total)
        elif total and self.waiting is not None:
            self.waiting.fail(self.timed_out("the request's total time ran out"))
        else:
            self.arm(now, 0.0)

    def fail(self, error: ProxyError) -> None:
        """End it with `error`: its whole answer, or what an answer that has begun ends with."""
        relay = self.relay
        if self.waiting is not None:
            self.waiting.fail(error)
        elif relay is not None:
            relay.abort()
            relay.fail(error)

    def flow(self, paused: bool) -> None:
        """The client fell behind, or caught up."""
        if self.relay is not None:
            self.relay.flow(paused)
        if not paused and self.target is not None:
            self.arm(self.site.clock(), self.target.terms.between_bytes_s)

    # -- from the relay and the reader -----------------------------------------------------------------------------

    def answer_begins(self, relay: Relay) -> Reader:
        """The engine's head is here; choose who reads the body."""
        self.answer_head = relay.connection.head
        reader = self.reader = self.reader_of(relay.connection, self)
        return reader

    def reader_of(self, upstream: UpstreamConnection, watcher: Watcher) -> AnswerReader:
        """Who reads the answer that comes there; `watcher` hears of its beginning."""
        head, clock = upstream.head, self.site.clock
        reader: AnswerReader
        if head.content_type.startswith(b"text/event-stream"):
            reader = EventReader(watcher, clock, self.series.itl, self.stream_error)
            reader.drop_usage = self.injects_usage
            reader.expects_done = upstream.until_close and self.route.path in ENDS_WITH_DONE
        elif head.content_type.startswith(b"application/json") or upstream.status >= 400:
            reader = WholeReader(watcher, clock, is_error=upstream.status >= 400)
        else:
            reader = PlainReader(watcher, clock)
        reader.wants_response_id = self.route.responses and upstream.status < 300
        return reader

    def informational(self, status: int, headers: HeaderList) -> None:
        """A 1xx answer: passed on at once to clients that know of them."""
        if self.request.minor and not self.answered and not self.begun:
            self.connection.write(status_line(status) + AnswerHead(headers).lines + b"\r\n")

    def first(self, now: float) -> None:
        """The first piece of the body that counts."""
        self.first_at = now
        backend, view, target = self.backend, self.view, self.target
        if target is not None and target.pool.learns and backend is not None and view is not None:
            target.pool.observe(Moment.FIRST_TOKEN, backend, view, now)

    def stream_error(self) -> bytes:
        """The event that ends a stream in place of an engine's abort."""
        self.error = UpstreamFailed("the engine gave up on this request", code="upstream_aborted")
        return error_event(self.error, self.route.dialect)

    # -- for the story ---------------------------------------------------------------------------------------------

    def find_field(self, name: str) -> str | None:
        """A top-level field of the JSON body, while the body is at hand."""
        return bodies.find_field(self.request.body, name)

    def read_prompt(self) -> Prompt:
        """What routing may know of the prompt, while the body is at hand."""
        body = self.request.body if self.route.json and self.route.computes else b""
        return prompt_of(body, self.model, self.site.prefix_secret) if body else NO_PROMPT

    @property
    def keeps_alive(self) -> bool:
        """Whether the client's connection goes on after this answer: not behind a body nobody has read."""
        request = self.request
        return request.keep_alive and not self.site.draining and (request.complete or not request.streamed)

    def arm(self, now: float, phase_s: float) -> None:
        """Set the deadline for the phase that begins (0: none), never later than the total one or the next beat."""
        at = now + phase_s if phase_s else NEVER
        # Compiled, comparisons call nothing, and `min` makes objects of its arguments; this is several times a request.
        if at > self.total_at:
            at = self.total_at
        if at > self.beat_at:
            at = self.beat_at
        self.connection.deadline = at

    def drop_payload(self) -> None:
        """The request's body is not needed any more."""
        if self._held_bytes:
            self.site.release(self._held_bytes)
            self._held_bytes = 0
        # Thousands of streams may be open, each for minutes: keep nothing that only its beginning needed.
        request = self.request
        self.payload = request.body = request.forward = b""
        request.headers = []
        if self.view is not None:
            self.view.headers = ()

    def timed_out(self, message: str) -> ProxyError:
        return UpstreamFailed(message, status=504, code="timeout")

    def _answer_expired(self, now: float, relay: Relay, total: bool) -> None:
        assert self.target is not None
        terms = self.target.terms
        reader = self.reader
        last_at = reader.last_at if reader is not None else 0.0
        if total:
            outcome = Outcome.DEADLINE
        elif self.connection.write_paused:
            # The silence is ours: the client does not read, so the engine is not being read either.
            self.arm(now, terms.between_bytes_s)
            return
        elif last_at:
            if not terms.between_bytes_s or now < last_at + terms.between_bytes_s:
                self.arm(last_at, terms.between_bytes_s)
                return
            outcome = Outcome.STALLED
        elif self._commits_early(now, relay):
            return
        else:
            outcome = Outcome.FIRST_BYTE_TIMEOUT
        relay.abort()
        relay.lost(outcome)

    def _upload_expired(self, relay: Relay, total: bool) -> None:
        if total:
            self.fail(self.timed_out("the request's total time ran out"))
        elif relay.connection.write_paused:
            relay.abort()
            relay.lost(Outcome.STALLED)
        else:
            self.fail(
                BadRequest("the request body did not arrive in time", code="request_timeout", status=408, close=True)
            )

    def _commits_early(self, now: float, relay: Relay) -> bool:
        """`commit_after`: let the head go although no body has come, for intermediaries with idle timeouts."""
        assert self.target is not None
        terms = self.target.terms
        # Where there are heartbeats, the head of ours serves that end, and leaves a failure to be tried elsewhere.
        commit_after_s = terms.commit_after_s if self.beat is None else 0.0
        first_byte_at = self.sent_at + terms.first_byte_s if terms.first_byte_s else NEVER
        look_again_at = now + commit_after_s if commit_after_s else NEVER
        if now >= first_byte_at:
            return False
        if self.reader is not None and not self.answered and commit_after_s:
            self.connection.deadline = min(first_byte_at, self.total_at)
            relay.ready.set(None)
        else:
            # The head has not come yet either; look again.
            self.connection.deadline = min(look_again_at, first_byte_at, self.total_at, self.beat_at)
        return True
