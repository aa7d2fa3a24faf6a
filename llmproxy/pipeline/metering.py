"""What a request may use: asked for before a backend is chosen, put right when its answer is over."""

from typing import Any, Final

from llmproxy.core.identity import Identity
from llmproxy.core.outcome import Outcome
from llmproxy.pipeline.body import Body
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.readers import Tokens
from llmproxy.policy.limits.charge import Charge
from llmproxy.policy.limits.limiter import Limiter

_REFUSED: Final = 400
"""From this status on an answer is a refusal, and took no tokens."""
_COUNT_MAX: Final = 10**9
"""So many tokens, or choices, no engine takes."""
_COUNTS_ONLY: Final = frozenset({b"/tokenize", b"/detokenize", b"/v1/messages/count_tokens"})
"""Routes that say how many tokens something has, and compute none."""


def ask(limiter: Limiter, x: Exchange, identity: Identity) -> Charge:
    """Ask for one request's worth of everything it is limited in. Close what comes back on every path."""
    # Not the time of arrival: a body may have taken minutes, and buckets must not be looked at in the past.
    now = x.site.clock()
    model = x.model
    if model is not None and model != x.series.model and model not in limiter.named:
        # No name that anybody knows: clients invent them, and each would be remembered.
        model = None
    if not generates(x):
        return limiter.check_request(identity, model, now)
    return limiter.admit(identity, model, now, prompt_bytes=len(x.request.body), max_tokens=most_tokens(x.body))


def let_pass(x: Exchange, charge: Charge) -> None:
    """Raises `RateLimited`, or `Unavailable` where limits that cannot be asked for are to let nobody pass."""
    if not charge.ok:
        raise charge.error()
    x.limits = charge.headers()


def settle(x: Exchange, charge: Charge, now_ms: int) -> None:
    """The request is over: it pays for what it used, and gives back what it did not."""
    reader = x.reader
    if reader is not None and x.answered and x.status < _REFUSED:
        tokens = reader.tokens
        charge.settle(tokens.prompt, generated(tokens, x.outcome is Outcome.OK))
    charge.close(now_ms)


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


def most_tokens(body: Body) -> int | None:
    """How many tokens an answer may have, in all of its choices; None when the request does not say."""
    for said in (body.max_completion_tokens, body.max_tokens, body.max_output_tokens):
        if most := _count(said):
            return most * (_count(body.n) or 1)
    return None


def _count(said: Any) -> int:
    """A number of things that an engine may take; 0 for anything else."""
    return said if type(said) is int and 0 < said < _COUNT_MAX else 0
