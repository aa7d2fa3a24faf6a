"""LMetric: the product of two indicators, no weights.

    least  (prompt tokens queued there + this prompt's tokens not cached there) * (batch size + 1)

Source: Zhang et al., "LMetric: Simple is Better - Multiplication May Be All You Need for LLM Request Scheduling"
(arXiv 2603.15202): "one for KV-cache awareness (new prefill tokens if routed to an instance) and one for load balancing
(current batch size of the instance)"; both with the request added.

Choices: queued tokens are the uncached ones of requests not yet answered by a first token; the batch is all requests in
flight there, running and waiting. Both are the router's own counts, so never stale. What is cached is an index of what
was sent there, as large as the KV cache. A wholly cached prompt counts one token. Equals at random.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.routing.rivals.pending import Pending
from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES, TOKENS_PER_BYTE
from llmproxy.core.request import Request
from llmproxy.policy.routing.prefix_index import PrefixIndex, capacity_blocks


@dataclass(frozen=True, slots=True)
class LMetricOptions:
    """None but what gauges may not tell."""

    cache_tokens: int = 400_000
    """Size of a KV cache until the gauges tell."""


class LMetric:
    """See the module."""

    options_type: ClassVar = LMetricOptions

    def __init__(self, options: LMetricOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._index = PrefixIndex()
        self._pending = Pending()

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        prompt = request.prompt
        depths = self._index.match(prompt.blocks)
        costs, news = [], []
        for backend in candidates:
            cached = depths.get(self._index.bit(backend), 0) * BLOCK_BYTES
            new = max((prompt.size - cached) * TOKENS_PER_BYTE, 1.0)
            news.append(new)
            costs.append((self._pending.of(backend) + new) * (backend.load.in_flight + 1))
        least = min(costs)
        place = self._rng.choice([place for place, cost in enumerate(costs) if cost == least])
        self._pending.expect(request, news[place])
        return candidates[place]

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        self._pending.observe(moment, backend, request)
        if moment is Moment.SENT:
            self._index.insert(backend, request.prompt.blocks, capacity_blocks(backend, self._options.cache_tokens))

    def forget(self, backend: Backend) -> None:
        self._index.forget(backend)
        self._pending.forget(backend)
