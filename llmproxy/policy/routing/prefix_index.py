"""Which backend has which prefix in its KV cache, as far as the requests sent there tell."""

from collections import OrderedDict
from collections.abc import Sequence

from llmproxy.core.backend import Backend
from llmproxy.core.prompt import BLOCK_BYTES, TOKENS_PER_BYTE


class PrefixIndex:
    """One dict from block hash to the set of backends that hold the block, as a bit mask; and per backend the order in
    which its blocks will be evicted, kept no longer than its cache is large.

    As in vLLM, a prompt's last block goes before its first, so a prefix outlives its continuations.
    """

    __slots__ = ("_bits", "_holders", "_kept")

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._bits: dict[Backend, int] = {}
        self._kept: dict[Backend, OrderedDict[int, None]] = {}

    def bit(self, backend: Backend) -> int:
        """The backend's place in the masks, from 0; places of leavers are given anew."""
        bit = self._bits.get(backend)
        if bit is None:
            taken = set(self._bits.values())
            bit = next(place for place in range(len(taken) + 1) if place not in taken)
            self._bits[backend] = bit
            self._kept[backend] = OrderedDict()
        return bit

    def match(self, blocks: Sequence[int]) -> dict[int, int]:
        """How many leading blocks each backend has, by bit; backends with none are left out."""
        depths: dict[int, int] = {}
        holders = self._holders
        depth = 0
        alive = -1
        for block in blocks:
            having = alive & holders.get(block, 0)
            if having != alive and depth:
                _note(depths, alive & ~having, depth)
            alive = having
            if not alive:
                return depths
            depth += 1
        if depth:
            _note(depths, alive, depth)
        return depths

    def insert(self, backend: Backend, blocks: Sequence[int], capacity: int) -> None:
        """The backend computes this prompt, or uses it again; it keeps `capacity` blocks."""
        if not blocks:
            return
        mask = 1 << self.bit(backend)
        kept = self._kept[backend]
        holders = self._holders
        for block in reversed(blocks):
            if block in kept:
                kept.move_to_end(block)
            else:
                kept[block] = None
                holders[block] = holders.get(block, 0) | mask
        while len(kept) > capacity:
            self._drop(kept.popitem(last=False)[0], mask)

    def remove(self, backend: Backend, blocks: Sequence[int]) -> None:
        """The backend turned out not to have these."""
        kept = self._kept.get(backend)
        if kept is None:
            return
        mask = 1 << self._bits[backend]
        for block in blocks:
            if block in kept:
                del kept[block]
                self._drop(block, mask)

    def empty(self, backend: Backend) -> None:
        """The backend lost all that it had."""
        kept = self._kept.get(backend)
        if kept:
            for block in kept:
                self._drop(block, 1 << self._bits[backend])
            kept.clear()

    def forget(self, backend: Backend) -> None:
        """The backend left."""
        self.empty(backend)
        self._bits.pop(backend, None)
        self._kept.pop(backend, None)

    def size(self, backend: Backend) -> int:
        """Blocks it is thought to hold."""
        return len(self._kept.get(backend, ()))

    def _drop(self, block: int, mask: int) -> None:
        left = self._holders[block] & ~mask
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]


def capacity_blocks(backend: Backend, otherwise_tokens: int, tokens_per_byte: float = TOKENS_PER_BYTE) -> int:
    """How many blocks fit into the backend's KV cache, as its gauges tell or as `otherwise_tokens` assume. A cache's
    size does not grow stale."""
    gauges = backend.gauges
    tokens = gauges.kv_tokens if gauges is not None and gauges.kv_tokens else otherwise_tokens
    return max(int(tokens / (BLOCK_BYTES * tokens_per_byte)), 1)


def _note(depths: dict[int, int], bits: int, depth: int) -> None:
    while bits:
        lowest = bits & -bits
        depths[lowest.bit_length() - 1] = depth
        bits ^= lowest
