"""AIBrix's `prefix-cache` routing.

    if most running - least running > 16: the one with the fewest running
    else, of those that have part of the prompt, longest match first, among equals fewest running:
        the first that has at most  mean + 2 * standard deviation  running
    else: the one with the fewest running

Source: "Prefix Cache Aware" in the README of the gateway's routing algorithms (pkg/plugins/gateway/algorithms) and its
configuration section: imbalance 16, factor 2, and a table of 200,000 blocks of 128 characters for all pods together,
least recently used first out.

Choices: the README's pseudocode has an imbalance of 8 and its configuration section 16; the latter is taken.
"Running" is requests in flight, which the gateway counts itself. The table is cut to the same number of characters.
Its time limit (entries unused for some minutes go) is left out. Equals at random.
"""

import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.core.request import Request


@dataclass(frozen=True, slots=True)
class AIBrixOptions:
    """Defaults of the configuration section."""

    imbalance: int = 16
    deviations: float = 2.0
    table_bytes: int = 200_000 * 128


class AIBrix:
    """See the module."""

    options_type: ClassVar = AIBrixOptions

    def __init__(self, options: AIBrixOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._table: OrderedDict[int, set[Backend]] = OrderedDict()

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        running = {backend: backend.load.in_flight for backend in candidates}
        if max(running.values()) - min(running.values()) <= self._options.imbalance:
            depths = self._match(running, request.prompt.blocks)
            limit = fmean(running.values()) + self._options.deviations * pstdev(running.values())
            ranked = sorted(depths, key=lambda backend: (-depths[backend], running[backend], self._rng.random()))
            for backend in ranked:
                if running[backend] <= limit:
                    return backend
        least = min(running.values())
        return self._rng.choice([backend for backend in candidates if running[backend] == least])

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        if moment is not Moment.SENT:
            return
        table = self._table
        for block in reversed(request.prompt.blocks):
            table.setdefault(block, set()).add(backend)
            table.move_to_end(block)
        while len(table) * BLOCK_BYTES > self._options.table_bytes:
            table.popitem(last=False)

    def forget(self, backend: Backend) -> None:
        for block in [block for block, pods in self._table.items() if backend in pods]:
            self._table[block].discard(backend)
            if not self._table[block]:
                del self._table[block]

    def _match(self, candidates: dict[Backend, int], blocks: Sequence[int]) -> dict[Backend, int]:
        """How many leading blocks each has; those with none are left out."""
        depths: dict[Backend, int] = {}
        # In the candidates' order, as ties are drawn in it: that of a set would differ from run to run.
        alive = list(candidates)
        for depth, block in enumerate(blocks, start=1):
            having = self._table.get(block, ())
            alive = [backend for backend in alive if backend in having]
            if not alive:
                break
            depths.update(dict.fromkeys(alive, depth))
        return depths
