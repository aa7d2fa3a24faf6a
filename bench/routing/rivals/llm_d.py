"""llm-d's default scheduling profile (the Endpoint Picker of the Gateway API inference extension).

    most of  2 * queue + 2 * kv + 3 * prefix
    queue  = (most waiting - waiting) / (most waiting - least waiting), or 1 where all have the same
    kv     = 1 - KV cache usage
    prefix = leading blocks of the prompt that were sent there before / blocks of the prompt

Source: the weights are those of llm-d's "Optimized Baseline" and of the scheduler's default plugins; the scorers are
described in its architecture pages ("Request Scheduler", "Prefix-Cache Aware Routing"). Queue and KV usage are gauges
scraped from the engines, every 50 ms by default (`refresh-metrics-interval`; the bench scrapes that often for it); the
prefix index is the picker's own, an LRU a server, sized to the server's KV cache.

Choices: the guide to the prefix plugin (site-src/guides/epp-configuration/prefix-aware.md) gives the LRU's size by a
formula from the KV cache, and later versions read it from the engine's metrics; so here. They also look at no more than
some 2,000 to 4,000 tokens of a prompt unless told otherwise: here all of it, which is kinder. A gauge not yet
scraped counts as 0. Equals at random, as the max-score picker does.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.prefix_index import PrefixIndex, capacity_blocks


@dataclass(frozen=True, slots=True)
class LlmDOptions:
    """The weights."""

    queue: float = 2.0
    kv: float = 2.0
    prefix: float = 3.0
    cache_tokens: int = 400_000
    """Size of a KV cache until the gauges tell."""


class LlmD:
    """See the module."""

    options_type: ClassVar = LlmDOptions

    def __init__(self, options: LlmDOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._index = PrefixIndex()

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        options, blocks = self._options, request.prompt.blocks
        waiting = [_gauge(backend, "waiting") for backend in candidates]
        most, least = max(waiting), min(waiting)
        depths = self._index.match(blocks)
        scores = []
        for backend, queued in zip(candidates, waiting, strict=True):
            queue = (most - queued) / (most - least) if most > least else 1.0
            share = depths.get(self._index.bit(backend), 0) / len(blocks) if blocks else 0.0
            usage = _gauge(backend, "kv_usage")
            scores.append(options.queue * queue + options.kv * (1.0 - usage) + options.prefix * share)
        best = max(scores)
        return self._rng.choice([backend for backend, score in zip(candidates, scores, strict=True) if score == best])

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        if moment is Moment.SENT:
            self._index.insert(backend, request.prompt.blocks, capacity_blocks(backend, self._options.cache_tokens))

    def forget(self, backend: Backend) -> None:
        self._index.forget(backend)


def _gauge(backend: Backend, name: str) -> float:
    value = None if backend.gauges is None else getattr(backend.gauges, name)
    return 0.0 if value is None else float(value)
