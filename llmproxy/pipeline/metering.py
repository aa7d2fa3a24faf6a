"""What a request may use: asked for before a backend is chosen, put right when its answer is over."""

from typing import Final

from llmproxy.core.identity import Identity
from llmproxy.core.outcome import Outcome
from llmproxy.pipeline.body import most_tokens
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.readers import Tokens
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.policy.limits.verdict import Reservation, Verdict

_REFUSED: Final = 400
"""From this status on an answer is a refusal, and took no tokens."""
_COUNTS_ONLY: Final = frozenset({b"/tokenize", b"/detokenize", b"/v1/messages/count_tokens"})
"""Routes that say how many tokens something has, and compute none."""


class Meter:
    """What one request took from its limits. `close` it on every path. Without a `reservation` it takes no tokens."""

    __slots__ = ("_limiter", "_reservation", "_verdict")

    def __init__(self, limiter: Limiter, verdict: Verdict, reservation: Reservation | None) -> None:
        self._limiter = limiter
        self._verdict = verdict
        self._reservation = reservation

    def close(self, x: Exchange, now: float) -> None:
        """The request is over: settle what it used, give back what it did not."""
        now_ms = self._limiter.unix_ms(now)
        reader, reservation = x.reader, self._reservation
        if reservation is not None:
            if reader is None or not x.answered or x.status >= _REFUSED:
                reservation.refund(now_ms)
            else:
                tokens = reader.tokens
                reservation.settle(tokens.prompt, generated(tokens, x.outcome is Outcome.OK), now_ms)
        self._verdict.release(now_ms)


async def take(limiter: Limiter, x: Exchange, identity: Identity) -> Meter:
    """Take one request's worth of everything it is limited in. Raises `RateLimited`, or `Unavailable` where limits that
    cannot be asked for are to let nobody pass."""
    # Not the time of arrival: a body may have taken minutes, and buckets must not be looked at in the past.
    now = x.site.clock()
    reservation: Reservation | None = None
    if generates(x):
        verdict, reservation = await limiter.admit(
            identity, x.model, now, prompt_bytes=len(x.request.body), max_tokens=most_tokens(x.request.body)
        )
    else:
        verdict = await limiter.check_request(identity, x.model, now)
    if not verdict.ok:
        raise verdict.error()
    x.limits = verdict.headers(reservation)
    return Meter(limiter, verdict, reservation)


def generates(x: Exchange) -> bool:
    """Whether it makes an engine compute tokens. What is fetched or cancelled by its id was paid for by whoever had it
    made, and its `usage` is that of then."""
    return x.request.method == b"POST" and x.route.has_model and x.route.path not in _COUNTS_ONLY


def generated(tokens: Tokens, whole: bool) -> int | None:
    """How long an answer became; None when nothing tells. `whole`: it did not break off."""
    said = tokens.completion
    if tokens.events and (said is None or not whole):
        # No engine's last word: a stream's pieces are counted. What it said at the beginning is no more than that.
        return max(said or 0, tokens.counted(whole))
    # Embeddings and the like: what was read is told, and nothing was written.
    return 0 if said is None and tokens.prompt is not None else said
