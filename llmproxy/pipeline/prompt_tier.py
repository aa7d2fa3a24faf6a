"""Which tier of capacity a prompt needs, in pools that have tiers (`scaling.tiers_of_capacity`)."""

from collections.abc import Sequence

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Backlogged
from llmproxy.core.prompt import TOKENS_PER_BYTE
from llmproxy.pipeline.exchange import Exchange
from llmproxy.pipeline.snapshot import Target


def size_up(x: Exchange, target: Target) -> None:
    """Estimate the prompt; where it does not fit the smallest tier, note what it needs, and that it came. What fits no
    tier at all goes to the largest, whose engine says so."""
    tiers, view, pool = target.terms.tiers, x.view, target.pool
    assert view is not None
    # Where the routing policy has not learned better.
    tokens = view.prompt.size * TOKENS_PER_BYTE
    if isinstance(pool.routing, Backlogged) and pool.backends:
        tokens = pool.routing.estimate(pool.backends, view).tokens
    if tokens <= tiers[0][1]:
        return
    name, most = next((one for one in tiers if tokens <= one[1]), tiers[-1])
    x.prompt_tokens, x.needs_tier = min(tokens, most), name
    seen = x.site.metrics.tier_prompts[pool.name, name]
    seen.requests += 1
    seen.tokens += tokens


def that_fit(candidates: Sequence[Backend], prompt_tokens: float) -> Sequence[Backend]:
    """Those that take prompts so long."""
    return [
        one for one in candidates if one.spec.prompt_tokens_max is None or one.spec.prompt_tokens_max >= prompt_tokens
    ]
