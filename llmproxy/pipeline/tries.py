"""One request's attempts: what each failure means, whether another is allowed, what the client is told at the end."""

from llmproxy.core.backend import Backend
from llmproxy.core.errors import ProxyError, UpstreamFailed
from llmproxy.core.outcome import Outcome
from llmproxy.pipeline.event_reader import EventReader
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.snapshot import Target
from llmproxy.policy.retry.rules import Ended, RetryState, Subject, Verdict, decide
from llmproxy.wire.relay import Relay

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
_FIRST = RetryState()
_SERVER_ERRORS = frozenset({500, 502, 503, 504})
_MESSAGES = {
    Outcome.REFUSED: ("upstream_unreachable", 502, "no connection to the backend"),
    Outcome.CONNECT_TIMEOUT: ("upstream_unreachable", 504, "no connection to the backend in time"),
    Outcome.RESET: ("upstream_lost", 502, "the backend closed the connection before it answered"),
    Outcome.CUT: ("upstream_lost", 502, "the backend was lost in the middle of its answer"),
    Outcome.BAD_RESPONSE: ("upstream_bad_response", 502, "the backend's answer is not valid HTTP/1.1"),
    Outcome.FIRST_BYTE_TIMEOUT: ("timeout", 504, "the backend did not begin to answer in time"),
    Outcome.STALLED: ("timeout", 504, "the backend stopped in the middle of the request or of its answer"),
    Outcome.DEADLINE: ("timeout", 504, "the request's total time ran out"),
    Outcome.ENGINE_ABORT: ("upstream_aborted", 502, "the engine gave up on this request"),
    Outcome.BUSY: ("upstream_busy", 503, "the backends are full"),
}
_BUSY_RETRY_AFTER_S = 1
_GONE = frozenset({Outcome.REFUSED, Outcome.CONNECT_TIMEOUT, Outcome.RESET})
"""Nobody is there any more, by the looks of it."""


class Tries:
    """Bookkeeping of one request's attempts. `tried` are the backends not to ask again; `fresh` asks for a new
    connection, because a kept one turned out to be dead."""

    __slots__ = ("_budget_spent", "_state", "_target", "_x", "fresh", "retry_after_s", "tried")

    def __init__(self, x: Exchange, target: Target) -> None:
        self._x = x
        self._target = target
        self.retry_after_s: float | None = None
        self._state = _FIRST
        self._budget_spent = False
        self.tried: list[Backend] = []
        self.fresh = False

    def again(self, outcome: Outcome, *, reused: bool) -> Outcome | None:
        """After a failed attempt: None when the request may not be tried again; otherwise what the attempt means for
        the backend's health. `reused`: it went over a kept connection on which nothing came back."""
        x, pool = self._x, self._target.pool
        assert x.backend is not None
        now = x.site.clock()
        reader = x.reader
        # Whoever saw the id of a stored response may ask its maker for it.
        seen_id = reader is not None and reader.response_id is not None and x.body.store is not False
        subject = Subject(
            repeatable=x.route.retryable or x.request.method in _IDEMPOTENT,
            replayable=not (x.request.streamed or seen_id),
            deadline=x.total_at,
        )
        sent = outcome not in (Outcome.REFUSED, Outcome.CONNECT_TIMEOUT)
        ended = Ended(outcome, x.answered, reused, now - x.sent_at if sent else 0.0)
        decision = decide(self._state, ended, subject, self._target.terms.rules, now)
        self._state = decision.state
        self.close()
        if decision.verdict is Verdict.FAIL or not self._somewhere_else(decision.reason, outcome):
            return None
        if decision.verdict is Verdict.BUDGET:
            if not pool.retries.try_spend():
                return None
            self._budget_spent = True
        x.causes.append(outcome.value)
        if decision.reason == "stale_connection":
            self.fresh = True
            return Outcome.ABANDONED
        self.tried.append(x.backend)
        return outcome

    def close(self) -> None:
        """An attempt out of the budget is over."""
        if self._budget_spent:
            self._budget_spent = False
            self._target.pool.retries.give_back()

    def _somewhere_else(self, reason: str, outcome: Outcome) -> bool:
        """Whether there is a backend to try next, or one will come in the place of this one."""
        x, pool = self._x, self._target.pool
        if reason == "stale_connection" or (pool.elastic and outcome in _GONE):
            return True
        candidates = pool.health.candidates(x.site.clock())
        return any(backend is not x.backend and backend not in self.tried for backend in candidates)

    def judge(self, relay: Relay, lost_by: Outcome | None) -> Outcome:
        """What an attempt has come to when its answer is ready to be passed on, or is lost."""
        x = self._x
        if lost_by is not None:
            return lost_by
        status = relay.connection.status
        head, reader = x.answer_head, x.reader
        self.retry_after_s = None
        if status == 429 or (status == 503 and head is not None and head.retry_after_s is not None):
            self.retry_after_s = head.retry_after_s if head is not None else None
            return Outcome.BUSY
        if status == 503 and reader is not None and reader.says_full:
            # vLLM's full queue comes without Retry-After; only its words tell it from an engine that is sick.
            return Outcome.BUSY
        if status in _SERVER_ERRORS:
            return Outcome.SERVER_ERROR
        if reader is not None and reader.failure is not None and x.request.method == b"POST":
            # An answer made before and asked for again may be one that was given up: that is no failure now.
            return reader.failure
        return Outcome.OK

    def judge_end(self, relay: Relay, ended: Outcome) -> Outcome:
        """What it came to when its answer ended, or broke off."""
        reader = self._x.reader
        if ended is Outcome.RESET:
            return Outcome.CUT
        if ended is Outcome.OK and reader is not None and reader.failure is not None:
            return reader.failure
        return ended

    def may_pass_on(self, relay: Relay, lost_by: Outcome | None) -> bool:
        """Whether a failed attempt's own answer is what the client should see: an engine's error status is."""
        reader = self._x.reader
        if lost_by is not None or relay.connection.status == 0:
            return False
        return relay.connection.status >= 400 and not isinstance(reader, EventReader)

    def failure(self, outcome: Outcome) -> ProxyError:
        """What the client is told."""
        code, status, message = _MESSAGES.get(outcome, ("upstream_failed", 502, "the backend failed"))
        retry_after_s = _BUSY_RETRY_AFTER_S if outcome is Outcome.BUSY else None
        return UpstreamFailed(message, code=code, status=status, retry_after_s=retry_after_s)
