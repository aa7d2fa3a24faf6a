"""Which backend made which `/v1/responses` answer: later calls about it must go there."""

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from llmproxy.core.backend import Backend

ASKED_FOR_S: Final = 600.0
"""For so long, later calls about an answer are to be expected."""

_BACKENDS_MAX: Final = 1000


class ResponseIds:
    """A bounded map id -> backend, the least recently used ones forgotten."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._makers: OrderedDict[bytes, Backend] = OrderedDict()
        self._made_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._makers)

    def remember(self, response_id: bytes, backend: Backend, now: float) -> None:
        self._made_at[backend.id] = now
        if len(self._made_at) > _BACKENDS_MAX:
            self.makers_of_late(now)
        self._makers[response_id] = backend
        self._makers.move_to_end(response_id)
        if len(self._makers) > self._size:
            self._makers.popitem(last=False)

    def maker(self, response_id: bytes) -> Backend | None:
        """The backend that made it, if it is still known."""
        backend = self._makers.get(response_id)
        if backend is not None:
            self._makers.move_to_end(response_id)
        return backend

    def makers_of_late(self, now: float) -> Collection[str]:
        """Ids of backends that made any lately."""
        self._made_at = {id: at for id, at in self._made_at.items() if now - at <= ASKED_FOR_S}
        return self._made_at.keys()


def id_in_path(path: bytes) -> bytes | None:
    """The id in `/v1/responses/{id}` and `/v1/responses/{id}/cancel`."""
    rest = path.removeprefix(b"/v1/responses/")
    return rest.partition(b"/")[0] or None if rest != path else None
