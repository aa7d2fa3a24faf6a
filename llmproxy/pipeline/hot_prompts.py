"""The beginnings that most prompts have in common, learned from traffic: what a new replica computes first.

Twenty requests a second at most are looked at. Their blocks (hashes of a prompt's leading pieces) are counted; what a
prompt shares with one that came before is kept as a request of its own (`prompt_cut.py`), so that nothing is kept that
only one request has said. Counts fade by half as others come. Everything is bounded, in this process's memory, and
goes nowhere but to replicas of the pool that the prompts were for.
"""

from collections.abc import Sequence
from typing import Any, Final

from llmproxy.core.prompt import BLOCK_BYTES
from llmproxy.pipeline.prompt_cut import beginning

LOOK_EVERY_S: Final = 0.05
LOOKED_AT_MAX_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 32
"""Blocks of a prompt that are told apart: 64 kB."""
COUNTED_MAX: Final = 16384
KEPT_MAX: Final = 32
_FADE_EVERY: Final = 4096


class HotPrompts:
    """One pool's."""

    def __init__(self) -> None:
        self.look_at = 0.0
        self._counts: dict[int, float] = {}
        self._kept: dict[tuple[int, ...], dict[str, Any]] = {}
        """By the blocks they consist of."""
        self._uncut: set[int] = set()
        """Those that cannot be cut, by their last block, so that it is not tried each time."""
        self._looked = 0

    def learn(self, blocks: Sequence[int], body: bytes) -> None:
        """A prompt came, in `body`, a chat or text completion."""
        blocks, counts, shared = blocks[:DEPTH_MAX], self._counts, 0
        for number, block in enumerate(blocks):
            count = counts.get(block, 0.0)
            counts[block] = count + 1.0
            if count >= 1.0 and shared == number:
                shared = number + 1
        if shared:
            self._keep(tuple(blocks[:shared]), body)
        self._looked += 1
        if self._looked % _FADE_EVERY == 0:
            self._fade()
        while len(counts) > COUNTED_MAX:
            self._fade()

    def hottest(self, count: int) -> list[dict[str, Any]]:
        """Requests, the hottest first: by how many prompts have them in common, times how much of it is new beside
        those before it."""
        covered: set[int] = set()
        left = dict(self._kept)
        found: list[dict[str, Any]] = []
        while left and len(found) < count:
            best = max(left, key=lambda blocks: self._heat(blocks, covered))
            if not self._heat(best, covered):
                break
            covered.update(best)
            found.append(left.pop(best))
        return found

    def _heat(self, blocks: tuple[int, ...], covered: set[int]) -> float:
        return self._counts.get(blocks[-1], 0.0) * sum(block not in covered for block in blocks)

    def _keep(self, blocks: tuple[int, ...], body: bytes) -> None:
        kept = self._kept
        if blocks in kept or blocks[-1] in self._uncut:
            return
        coldest = min(kept, key=lambda one: self._heat(one, set())) if len(kept) >= KEPT_MAX else None
        if coldest is not None and self._heat(coldest, set()) >= self._heat(blocks, set()):
            return
        request = beginning(body, len(blocks) * BLOCK_BYTES)
        if request is not None:
            kept[blocks] = request
            if coldest is not None:
                del kept[coldest]
        else:
            self._uncut.add(blocks[-1])

    def _fade(self) -> None:
        self._uncut.clear()
        for block, count in list(self._counts.items()):
            if count < 2.0:
                del self._counts[block]
            else:
                self._counts[block] = count / 2
        self._kept = {blocks: request for blocks, request in self._kept.items() if blocks[-1] in self._counts}
