"""Backends and pools that left: noticed, waited for until they have drained, and then forgotten."""

from collections.abc import Callable, Mapping
from typing import Any

from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock
from llmproxy.core.pool import Pool

LINGER_S = 60.0
"""How long what is counted of a drained backend is still shown, so that a scraper sees the end of it."""
_LOOK_EVERY_S = 1.0
_NEVER = float("inf")


class Leavers:
    """`update` after each change of membership; `expired` whenever `deadline` has passed (a `Timed` of the wire).

    `on_backend(pool, id)` and `on_pool(name)` are told of what is gone for good: left, without a request in flight for
    `LINGER_S`, and without a namesake in its place.
    """

    def __init__(self, clock: Clock, *, on_backend: Callable[[str, str], None], on_pool: Callable[[str], None]) -> None:
        self.deadline = _NEVER
        self._clock = clock
        self._on_backend = on_backend
        self._on_pool = on_pool
        self._members: dict[Backend, str] = {}
        self._pools: set[str] = set()
        self._left: dict[Backend, tuple[str, float]] = {}
        """The pool it left, and since when it has had nothing to do."""
        self._pools_left: dict[str, float] = {}

    def update(self, pools: Mapping[str, Pool[Any]]) -> None:
        """These are the pools, with their members, from now on."""
        now = self._clock()
        members = {backend: name for name, pool in pools.items() for backend in pool.backends}
        self._left |= {backend: (pool, now) for backend, pool in self._members.items() if backend not in members}
        self._pools_left |= dict.fromkeys(self._pools - pools.keys(), now)
        for name in pools:
            self._pools_left.pop(name, None)
        self._members, self._pools = members, set(pools)
        if self._left or self._pools_left:
            self.deadline = min(self.deadline, now + _LOOK_EVERY_S)

    def expired(self, now: float) -> None:
        """Look who has drained."""
        for backend, (pool, since) in list(self._left.items()):
            if backend.load.in_flight:
                self._left[backend] = pool, now
            elif now - since >= LINGER_S:
                del self._left[backend]
                if not self._has_namesake(pool, backend.id):
                    self._on_backend(pool, backend.id)
        busy = {pool for pool, _ in self._left.values()}
        for name, since in list(self._pools_left.items()):
            if name not in busy and now - since >= LINGER_S:
                del self._pools_left[name]
                self._on_pool(name)
        self.deadline = now + _LOOK_EVERY_S if self._left or self._pools_left else _NEVER

    def _has_namesake(self, pool: str, backend: str) -> bool:
        members = ((name, one.id) for one, name in self._members.items())
        leavers = ((name, one.id) for one, (name, _) in self._left.items())
        return (pool, backend) in {*members, *leavers}
