"""llm-d's default scheduling profile (the Endpoint Picker of the Gateway API inference extension).

    most of  2 * queue + 2 * kv + 3 * prefix
    queue  = (most waiting - waiting) / (most waiting - least waiting), or 1 where all have the same
    kv     = 1 - KV cache usage
    prefix = leading blocks of the prompt that were sent there before / blocks of the prompt

Source: the weights are those of llm-d's "Optimized Baseline" and of the scheduler's default plugins; the scorers are
described in its architecture pages ("Request Scheduler", "Prefix-Cache Aware Routing"). Queue and KV usage are gauges
scraped from the engines, every 50 ms by default (`DefaultRefreshMetricsInterval`, pkg/epp/server/runserver.go of the
Gateway API inference extension; the bench scrapes that often for it); the prefix index is the picker's own, an LRU a
server, sized to the server's KV cache.

It runs under two names. `llm_d` reads what vLLM publishes: figures made at the end of its last step, without the
requests that came during that step and without KV blocks for prompts not yet computed (`llmproxy.sim.published`, with
its sources). That is what llm-d reads, and targets are judged by it. `llm_d_live` reads gauges as things are at the
moment of a scrape, which no engine publishes: a harder rival than there is, shown beside the other.

Choices: the guide to the prefix plugin (site-src/guides/epp-configuration/prefix-aware.md) gives the LRU's size by a
formula from the KV cache, and later versions read it from the engine's metrics; so here. How much of a prompt they look
at has changed: 256 blocks (`DefaultMaxPrefixBlocks`) as long as the engine's, 4,096 tokens for vLLM's 16; later blocks
of at least 64 tokens; then 131,072 tokens. Here all of it (`look_tokens` 0), which is kinder. The newest baseline has a
scorer for prompts that nobody has in a cache, too (`no-hit-lru`): not here. A gauge not yet scraped counts as 0. Equals
at random, as the max-score picker does.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES, TOKENS_PER_BYTE
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
    look_tokens: int = 0
    """So much of a prompt is looked at; 0: all of it."""


class LlmD:
    """See the module."""

    options_type: ClassVar = LlmDOptions

    def __init__(self, options: LlmDOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._index = PrefixIndex()

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        options, blocks = self._options, self._blocks(request)
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
            self._index.insert(backend, self._blocks(request), capacity_blocks(backend, self._options.cache_tokens))

    def forget(self, backend: Backend) -> None:
        self._index.forget(backend)

    def _blocks(self, request: Request) -> Sequence[int]:
        blocks, look = request.prompt.blocks, self._options.look_tokens
        return blocks[: int(look / (BLOCK_BYTES * TOKENS_PER_BYTE))] if look else blocks


def _gauge(backend: Backend, name: str) -> float:
    value = None if backend.gauges is None else getattr(backend.gauges, name)
    return 0.0 if value is None else float(value)
