"""What a request may use: asked for before a backend is chosen, put right when its answer is over."""

from llmproxy.core.identity import Identity
from llmproxy.pipeline.body import most_tokens
from llmproxy.pipeline.exchange import Exchange
from llmproxy.policy.limits.limiter import Limiter
from llmproxy.policy.limits.verdict import Reservation, Verdict

_USED_UP = 400
"""From this status on an answer is a refusal, and took no tokens."""


class Meter:
    """What one request took from its limits. `close` it on every path."""

    __slots__ = ("_limiter", "_reservation", "_verdict")

    def __init__(self, limiter: Limiter, verdict: Verdict, reservation: Reservation) -> None:
        self._limiter = limiter
        self._verdict = verdict
        self._reservation = reservation

    def close(self, x: Exchange, now: float) -> None:
        """The request is over: settle what it used, give back what it did not."""
        now_ms = self._limiter.unix_ms(now)
        reader = x.reader
        if reader is None or not x.answered or x.status >= _USED_UP:
            self._reservation.refund(now_ms)
        else:
            tokens = reader.tokens
            completion = tokens.completion
            if completion is None and tokens.events:
                # No engine's word: a stream's pieces are counted, one of which says nothing.
                completion = max(tokens.events - 1, 1)
            self._reservation.settle(tokens.prompt, completion, now_ms)
        self._verdict.release(now_ms)


async def take(limiter: Limiter, x: Exchange, identity: Identity) -> Meter:
    """Take one request's worth of everything it is limited in. Raises `RateLimited`, or `Unavailable` where limits that
    cannot be asked for are to let nobody pass."""
    verdict, reservation = await limiter.admit(
        identity, x.model, x.request.arrived, prompt_bytes=len(x.request.body), max_tokens=most_tokens(x.request.body)
    )
    if not verdict.ok:
        raise verdict.error()
    x.limits = verdict.headers(reservation)
    return Meter(limiter, verdict, reservation)
