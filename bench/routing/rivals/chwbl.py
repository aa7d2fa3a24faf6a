"""Consistent hashing with bounded loads over a prompt's beginning, as KubeAI's `PrefixHash` does it.

    hash the beginning of the prompt to a point on a ring on which each backend stands 256 times;
    from there on, the first backend with room:  in flight + 1 <= ceil(1.25 * (in flight everywhere + 1) / backends)

Source: Mirrokni, Thorup & Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016); KubeAI, "Load Balancing"
(docs/concepts/load-balancing.md), with its defaults: mean load 125 %, replication 256.

Choices: KubeAI hashes the first 100 characters of a chat's first *user* message, so beyond what all chats of an
application share. Mooncake's prompts all have block 0 in common (the system prompt); so the key is the first
`prefix_blocks` = 2 blocks: the shared one and the first that tells chats apart. Longer keys would part a chat's first
turns from its later ones. A prompt without a full block has no key here, and goes where fewest are in flight.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from llmproxy.core.backend import Backend
from llmproxy.core.request import Request
from llmproxy.policy.routing.base import Unlearning
from llmproxy.policy.routing.rendezvous import digest


@dataclass(frozen=True, slots=True)
class BoundedHashingOptions:
    """See the module."""

    prefix_blocks: int = 2
    load_bound: float = 1.25
    replication: int = 256


class BoundedHashing(Unlearning):
    """See the module."""

    options_type: ClassVar = BoundedHashingOptions

    def __init__(self, options: BoundedHashingOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._ring: list[tuple[int, str]] = []
        self._known: dict[str, Backend] = {}

    def pick(self, candidates: Sequence[Backend], request: Request, now: float) -> Backend:
        blocks = request.prompt.blocks[: self._options.prefix_blocks]
        if blocks:
            able = set(candidates)
            bound = ceil(self._options.load_bound * (sum(one.load.in_flight for one in able) + 1) / len(able))
            for backend in self._from(digest(str(blocks[-1])), candidates):
                if backend in able and backend.load.in_flight + 1 <= bound:
                    return backend
        least = min(backend.load.in_flight for backend in candidates)
        return self._rng.choice([backend for backend in candidates if backend.load.in_flight == least])

    def forget(self, backend: Backend) -> None:
        if self._known.pop(backend.id, None) is not None:
            self._ring = [(point, name) for point, name in self._ring if name != backend.id]

    def _from(self, key: int, candidates: Sequence[Backend]) -> Sequence[Backend]:
        """The backends in the order of the ring, each once."""
        for backend in candidates:
            if self._known.get(backend.id) is not backend:
                self.forget(backend)
                self._known[backend.id] = backend
                for place in range(self._options.replication):
                    insort(self._ring, (digest(f"{backend.spec.url}#{place}"), backend.id))
        start = bisect_left(self._ring, (key, ""))
        order: dict[str, None] = {}
        for step in range(len(self._ring)):
            order[self._ring[(start + step) % len(self._ring)][1]] = None
            if len(order) == len(self._known):
                break
        return [self._known[name] for name in order]
