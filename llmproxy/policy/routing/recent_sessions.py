"""Where sessions live: whom each was sent to last, for as long as it is likely to go on.

A session is known by its name, or, where routing goes by prompts, by the end of its latest prompt."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from llmproxy.core.backend import Backend

LIVES_S: Final = 600.0
"""A session that was silent for longer is over, or what it had in the KV cache has made room for others."""
KEPT_MAX: Final = 100_000


class RecentSessions:
    """Bounded: of too many, those that were silent longest are forgotten. Sessions are numbers (hashes)."""

    __slots__ = ("_kept_max", "_last", "_live")

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._last: OrderedDict[int, tuple[Backend, float]] = OrderedDict()
        self._live: dict[Backend, int] = {}

    def sent(self, session: int, backend: Backend, now: float) -> None:
        last = self._last
        before = last.get(session)
        last[session] = (backend, now)
        if before is None:
            self._live[backend] = self._live.get(backend, 0) + 1
            if len(last) > self._kept_max:
                self._drop_oldest()
            # Nobody may ask for long who lives: two for each that comes keep up.
            self._drop_over(now, 2)
            return
        last.move_to_end(session)
        if before[0] is not backend:
            self._leave(before[0])
            self._live[backend] = self._live.get(backend, 0) + 1

    def turn(self, blocks: Sequence[int], cached: int, backend: Backend, now: float) -> None:
        """A prompt whose requests name no session. Where it goes on from the end of an earlier one (its first `cached`
        blocks are there), it is that one's next turn; else a session of its own begins."""
        if not blocks:
            return
        if 0 < cached < len(blocks):
            before = self._last.get(blocks[cached - 1])
            if before is not None:
                del self._last[blocks[cached - 1]]
                self._leave(before[0])
        self.sent(blocks[-1], backend, now)

    def live(self, now: float) -> dict[str, int]:
        """How many live at each backend that has any, by its id: two may have the same, one that has left and one that
        has come in its place."""
        self._drop_over(now, len(self._last))
        found: dict[str, int] = {}
        for backend, count in self._live.items():
            found[backend.id] = found.get(backend.id, 0) + count
        return found

    def forget(self, backend: Backend) -> None:
        """It left the pool. What was sent there is dropped when its time comes."""
        self._live.pop(backend, None)

    def __len__(self) -> int:
        return len(self._last)

    def _drop_over(self, now: float, at_most: int) -> None:
        for _ in range(at_most):
            if not self._last or now - next(iter(self._last.values()))[1] <= LIVES_S:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (backend, _) = self._last.popitem(last=False)
        self._leave(backend)

    def _leave(self, backend: Backend) -> None:
        count = self._live.get(backend, 0)
        if count > 1:
            self._live[backend] = count - 1
        else:
            self._live.pop(backend, None)
