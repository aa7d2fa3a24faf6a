"""When a replica that drains is done."""

from collections.abc import Callable
from typing import Final

from llmproxy.control.scaling.fleet import Replica

RECYCLE_GRACE_S: Final = 15.0
"""How long one that must go anyway may finish what runs there."""


def has_drained(replica: Replica, drain_s: float, have_left: Callable[[Replica], bool], now: float) -> bool:
    """Nothing runs there any more, for no proxy; or it has had its time."""
    backend = replica.backend
    if now - replica.since >= (RECYCLE_GRACE_S if replica.recycle else drain_s):
        return True
    if not have_left(replica):
        return False
    if backend is None:
        return True
    gauges = backend.known(now)
    # The engine's own count has the requests of other proxies in it.
    elsewhere = 0.0 if gauges is None else (gauges.running or 0.0) + (gauges.waiting or 0.0)
    return backend.load.in_flight == 0 and elsewhere == 0
