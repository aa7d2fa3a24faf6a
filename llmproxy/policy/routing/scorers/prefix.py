"""What of the prompt is in the prefix cache."""

from collections.abc import Sequence

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request
from llmproxy.policy.routing.prefix_index import PrefixIndex, capacity_blocks

CACHE_TOKENS = 400_000
"""Size of a KV cache until the backend's metrics tell."""


class PrefixScorer:
    """The share of the prompt's blocks that match."""

    __slots__ = ("_index",)

    def __init__(self) -> None:
        self._index = PrefixIndex()

    def scores(self, candidates: Sequence[Backend], request: Request, now: float) -> list[float]:
        blocks = request.prompt.blocks
        depths = self._index.match(blocks)
        if not depths:
            return [0.0] * len(candidates)
        return [depths.get(self._index.bit(backend), 0) / len(blocks) for backend in candidates]

    def observe(self, moment: Moment, backend: Backend, request: Request, now: float) -> None:
        if moment is Moment.SENT:
            self._index.insert(backend, request.prompt.blocks, capacity_blocks(backend, CACHE_TOKENS))

    def forget(self, backend: Backend) -> None:
        self._index.forget(backend)
