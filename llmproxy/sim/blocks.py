"""The KV cache as counted blocks: a block is held by sequences, or idle in the prefix cache, or empty.

A block's content is known by a hash that covers everything before it too, so equal hashes mean equal prefixes.
Blocks being filled have no hash yet and belong to one sequence (private).
"""

from collections import OrderedDict
from collections.abc import Sequence


class BlockTable:
    """What one sequence holds: `shared` are the hashes of its full blocks in order, `private` counts the others."""

    __slots__ = ("private", "shared")

    def __init__(self, shared: list[int], private: int) -> None:
        self.shared = shared
        self.private = private


class BlockPool:
    """`total` blocks of `block_size` tokens, with a least-recently-used prefix cache in the blocks nobody holds."""

    __slots__ = ("_holders", "_idle", "_private", "block_size", "openings", "total")

    def __init__(self, total: int, block_size: int) -> None:
        if total < 1 or block_size < 1:
            raise ValueError("a block pool needs at least one block of at least one token")
        self.total = total
        self.block_size = block_size
        self.openings = 0
        """How often a prompt that did not fit may have come to fit: blocks were given back, or can now be shared."""
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    @property
    def used(self) -> int:
        """Blocks held by sequences."""
        return len(self._holders) + self._private

    @property
    def cached(self) -> int:
        """Blocks nobody holds whose content can still be found."""
        return len(self._idle)

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def matching(self, hashes: Sequence[int], tokens: int) -> int:
        """How many leading blocks of a prompt of `tokens` are cached. The prompt's last token is never counted."""
        limit = min(len(hashes), max(tokens - 1, 0) // self.block_size)
        for index in range(limit):
            if hashes[index] not in self._holders and hashes[index] not in self._idle:
                return index
        return limit

    def open(self, hashes: Sequence[int], tokens: int) -> BlockTable | None:
        """Take the blocks for `tokens`, sharing the cached prefix; None (and nothing taken) when they do not fit."""
        hits = self.matching(hashes, tokens)
        shared = list(hashes[:hits])
        revived = sum(1 for block in shared if block in self._idle)
        fresh = self.blocks_for(tokens) - hits
        if self.used + revived + fresh > self.total:
            return None
        for block in shared:
            self._hold(block)
        self._private += fresh
        self._evict()
        return BlockTable(shared, fresh)

    def grow(self, table: BlockTable, tokens: int) -> bool:
        """Make room for `tokens` in all; False when no block is free."""
        missing = self.blocks_for(tokens) - len(table.shared) - table.private
        if missing <= 0:
            return True
        if self.used + missing > self.total:
            return False
        table.private += missing
        self._private += missing
        self._evict()
        return True

    def seal(self, table: BlockTable, hashes: Sequence[int], tokens: int) -> None:
        """`tokens` are computed: the full blocks among them, as far as their hashes are known, become findable."""
        full = min(tokens // self.block_size, len(hashes))
        if len(table.shared) < full:
            self.openings += 1
        while len(table.shared) < full:
            block = hashes[len(table.shared)]
            self._hold(block)
            table.shared.append(block)
            table.private -= 1
            self._private -= 1

    def close(self, table: BlockTable) -> None:
        """Give everything back. The last block becomes the oldest, so that prefixes outlive their continuations."""
        self.openings += 1
        for block in reversed(table.shared):
            holders = self._holders[block] - 1
            if holders:
                self._holders[block] = holders
            else:
                del self._holders[block]
                self._idle[block] = None
        self._private -= table.private
        table.shared = []
        table.private = 0

    def clear_cache(self) -> None:
        """Forget the blocks nobody holds."""
        self._idle.clear()

    def _hold(self, block: int) -> None:
        self._idle.pop(block, None)
        self._holders[block] = self._holders.get(block, 0) + 1

    def _evict(self) -> None:
        room = self.total - self.used
        while len(self._idle) > room:
            self._idle.popitem(last=False)
