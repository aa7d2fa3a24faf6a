"""NVIDIA Dynamo's KV router.

    least  overlap weight * prefill blocks + decode blocks
    prefill blocks = (prompt tokens there that await their first token + this prompt's tokens not cached there) / block
    decode blocks  = blocks that active requests hold there, with this request's; shared blocks count once

Source: "Cost Calculation" in docs/architecture/kv_cache_routing.md and "Router Design" in the Dynamo documentation:
overlap weight 1, temperature 0. Prefill load ends with the first token, decode load with the request; blocks of
generated text are not counted unless asked for.

Choices: the block is `BLOCK_BYTES` long instead of 16 to 64 tokens; both terms are in blocks, so only rounding
differs: the partial block at a prompt's end counts as the part it is in the first term and as one in the second.
Engines tell Dynamo what they cache by events; here it is an index of what was sent there, as large as the KV cache.
Equals at random.
"""

import random
from collections import Counter
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
class DynamoOptions:
    """`kv-overlap-score-weight`."""

    overlap: float = 1.0
    cache_tokens: int = 400_000
    """Size of a KV cache until the gauges tell."""


class _Active:
    """Blocks that active requests hold on one backend."""

    __slots__ = ("held", "partial")

    def __init__(self) -> None:
        self.held: Counter[int] = Counter()
        self.partial = 0

    def with_prompt(self, blocks: Sequence[int], partial: int) -> int:
        return len(self.held) + self.partial + partial + sum([block not in self.held for block in blocks])

    def enter(self, blocks: Sequence[int], partial: int) -> None:
        self.partial += partial
        self.held.update(blocks)

    def leave(self, blocks: Sequence[int], partial: int) -> None:
        self.partial -= partial
        for block in blocks:
            if self.held[block] > 1:
                self.held[block] -= 1
            else:
                del self.held[block]


class Dynamo:
    """See the module."""

    options_type: ClassVar = DynamoOptions

    def __init__(self, options: DynamoOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._index = PrefixIndex()
        self._pending = Pending()
        self._active: dict[Backend, _Active] = {}

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        prompt = request.prompt
        depths = self._index.match(prompt.blocks)
        costs, news = [], []
        for backend in candidates:
            new = max(prompt.size - depths.get(self._index.bit(backend), 0) * BLOCK_BYTES, 0) * TOKENS_PER_BYTE
            news.append(new)
            prefill = (self._pending.of(backend) + new) / (BLOCK_BYTES * TOKENS_PER_BYTE)
            active = self._active.setdefault(backend, _Active())
            costs.append(self._options.overlap * prefill + active.with_prompt(prompt.blocks, _partial(request)))
        least = min(costs)
        place = self._rng.choice([place for place, cost in enumerate(costs) if cost == least])
        self._pending.expect(request, news[place])
        return candidates[place]

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        self._pending.observe(moment, backend, request)
        blocks, active = request.prompt.blocks, self._active.setdefault(backend, _Active())
        if moment is Moment.SENT:
            self._index.insert(backend, blocks, capacity_blocks(backend, self._options.cache_tokens))
            active.enter(blocks, _partial(request))
        elif moment is not Moment.FIRST_TOKEN:
            active.leave(blocks, _partial(request))

    def forget(self, backend: Backend) -> None:
        self._index.forget(backend)
        self._pending.forget(backend)
        self._active.pop(backend, None)


def _partial(request: Request) -> int:
    """Whether the prompt ends with a part of a block."""
    return int(request.prompt.size > len(request.prompt.blocks) * BLOCK_BYTES)
