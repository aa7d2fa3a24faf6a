"""Rendezvous hashing: every key ranks all backends in its own order, and takes the first of those that are there.

So a backend that leaves moves only its own keys, each to its next choice, and one that comes takes only its share.
The weighted form, score = -weight / ln(u) with u uniform in (0, 1), gives each backend keys in proportion to its
weight, and a weight that grows or shrinks moves keys only to or from that backend.

Scores depend on the key and the backend's URL alone: not on its id or place in a list, and not on this process, so
several proxies and a restarted one agree.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import log

from llmproxy.core.backend import Backend

_MASK = (1 << 64) - 1


def digest(text: str) -> int:
    """64 well-mixed bits of `text`, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class Rendezvous:
    """Ranks backends for keys. Keeps one number for each backend until it is told to forget it."""

    __slots__ = ("_seeds",)

    def __init__(self) -> None:
        self._seeds: dict[Backend, int] = {}

    def first(self, key: int, candidates: Sequence[Backend]) -> Backend:
        """The candidate that `key` (a `digest`) ranks first."""
        seeds = self._seeds
        best = candidates[0]
        highest = -1.0
        for backend in candidates:
            seed = seeds.get(backend)
            if seed is None:
                seed = seeds[backend] = digest(backend.spec.url)
            # Mixing two digests costs half of hashing both texts anew for every candidate. Multiplying carries bits
            # upwards only, so the halves are folded in between.
            bits = ((key ^ seed) * 0xBF58476D1CE4E5B9) & _MASK
            bits = ((bits ^ (bits >> 32)) * 0x94D049BB133111EB) & _MASK
            # The top 52 bits and a half are exact in a float, so this is never 0 or 1.
            score = -backend.weight / log(((bits >> 12) + 0.5) * 2.0**-52)
            if score > highest:
                highest = score
                best = backend
        return best

    def forget(self, backend: Backend) -> None:
        """The backend left."""
        self._seeds.pop(backend, None)
