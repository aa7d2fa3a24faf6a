"""Lets the pool's `HotPrompts` see a request now and then."""

from llmproxy.pipeline.exchange import ENDS_WITH_DONE, Exchange
from llmproxy.pipeline.hot_prompts import LOOK_EVERY_S, LOOKED_AT_MAX_BYTES


def learn_prompt(x: Exchange, pool: str) -> None:
    """For each request to a pool whose replicas are warmed; most are passed over at once."""
    hot, arrived = x.site.hot.get(pool), x.request.arrived
    if hot is None or arrived < hot.look_at or x.route.path not in ENDS_WITH_DONE:
        return
    hot.look_at = arrived + LOOK_EVERY_S
    if x.view is not None and len(x.payload) <= LOOKED_AT_MAX_BYTES and x.view.prompt.blocks:
        hot.learn(x.view.prompt.blocks, x.payload)
