"""The rules for one request: attempt ended -> retry for free, retry out of the budget, or fail, and why."""

from dataclasses import dataclass, replace
from enum import Enum

from llmproxy.core.enums import plain
from llmproxy.core.outcome import Outcome

_NEVER = float("inf")
_FINAL = frozenset({Outcome.OK, Outcome.ABANDONED, Outcome.DEADLINE})
_UNSENT = frozenset({Outcome.REFUSED, Outcome.CONNECT_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Rules:
    """A pool's limits; replaced whole on reload. Defaults are the configuration's."""

    attempts: int = 3
    """Most backends tried for one request."""
    after_crash: int = 1
    """Retries of a request whose engine died under it."""
    stale_within_s: float = 1.0
    """A kept connection lost sooner than this after sending was closed before the engine read the request: engines
    retire idle connections, and the two may cross. One lost later took the engine, or the request, with it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The request."""

    repeatable: bool
    """Sending it twice does no harm: an inference route, or an idempotent method."""
    replayable: bool = True
    """Its body is still at hand."""
    deadline: float = _NEVER
    """When its total time is over, in monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that ended."""

    outcome: Outcome
    committed: bool = False
    """Something of an answer has gone downstream."""
    reused: bool = False
    """It went over a kept connection, on which nothing came back, not even a part of a head."""
    lasted_s: float = _NEVER
    """From sending the request to the end."""


@dataclass(frozen=True, slots=True)
class RetryState:
    """What a request has used up. A new request's is `RetryState()`."""

    attempts: int = 0
    crashes: int = 0
    loss_retried: bool = False
    stale_retried: bool = False


@plain
class Verdict(Enum):
    """The value is the label."""

    FREE = "free"
    BUDGET = "budget"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is a short label for logs: why not, or which rule allows it. `state` is the request's from now on."""

    verdict: Verdict
    reason: str
    state: RetryState


def decide(state: RetryState, ended: Ended, subject: Subject, rules: Rules, now: float) -> Decision:
    """What follows the attempt that ended."""
    outcome = ended.outcome
    obstacle = _obstacle(ended, subject, now)
    if obstacle is not None:
        return Decision(Verdict.FAIL, obstacle, replace(state, attempts=state.attempts + 1))
    if outcome is Outcome.RESET and _is_stale(ended, rules) and not state.stale_retried:
        # No backend has seen it, so it was no attempt.
        return Decision(Verdict.FREE, "stale_connection", replace(state, stale_retried=True))
    state = replace(state, attempts=state.attempts + 1, crashes=state.crashes + outcome.is_crash)
    if state.attempts >= rules.attempts:
        return Decision(Verdict.FAIL, "attempts", state)
    if outcome.is_crash and state.crashes > rules.after_crash:
        return Decision(Verdict.FAIL, "after_crash", state)
    if outcome.is_loss and not state.loss_retried:
        return Decision(Verdict.FREE, "loss", replace(state, loss_retried=True))
    return Decision(Verdict.BUDGET, outcome.value, state)


def _obstacle(ended: Ended, subject: Subject, now: float) -> str | None:
    """Why no further attempt can help or is allowed, whatever the limits."""
    if ended.outcome in _FINAL:
        return ended.outcome.value
    if ended.committed:
        return "committed"
    if now >= subject.deadline:
        return "deadline"
    if not subject.replayable:
        return "body_gone"
    # What never left is safe to send again, whatever it is (RFC 9110, 9.2.2).
    if not subject.repeatable and ended.outcome not in _UNSENT:
        return "not_repeatable"
    return None


def _is_stale(ended: Ended, rules: Rules) -> bool:
    return ended.reused and ended.lasted_s < rules.stale_within_s
