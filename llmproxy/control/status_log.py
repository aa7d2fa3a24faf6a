"""Says in the log when a backend's status changes, once each time and with its reason, whoever noticed: a probe, a
request that failed, the end of a time out, an operator."""

import logging
from dataclasses import dataclass

from llmproxy.core.backend import Backend, Status
from llmproxy.core.clock import Clock

LINES_MAX = 6
PERIOD_S = 60.0
"""Of each backend at most `LINES_MAX` changes are told in this time: one that flaps must not fill the log."""
_AT_WORK = frozenset({Status.HEALTHY, Status.HALF_OPEN})
_BAD = frozenset({Status.UNHEALTHY, Status.OPEN})

_log = logging.getLogger("llmproxy.control.status")


@dataclass(slots=True)
class _Told:
    """What was said of one backend in the period that began at `since`."""

    since: float
    lines: int = 0
    unsaid: int = 0


class StatusLog:
    """`changed` for each change, `calm` now and then: it tells where a backend that flapped has got to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], _Told] = {}

    def changed(self, pool: str, backend: Backend, before: Status, after: Status, why: str) -> None:
        """The backend's status is `after` now."""
        now = self._clock()
        key = pool, backend.id
        told = self._told.get(key)
        if told is None or now - told.since >= PERIOD_S:
            told = self._told[key] = _Told(now, unsaid=told.unsaid if told is not None else 0)
        if told.lines >= LINES_MAX:
            told.unsaid += 1
            return
        told.lines += 1
        more = f"; {told.unsaid} changes before this one were not logged" if told.unsaid else ""
        told.unsaid = 0
        if told.lines == LINES_MAX:
            more += f"; it changes often: the next ones are not logged, for up to {PERIOD_S:g} s"
        bad = after in _BAD or (after is Status.LOADING and before in _AT_WORK)
        _log.log(
            logging.WARNING if bad else logging.INFO,
            "pool %s: backend %s: %s -> %s (%s)%s",
            pool,
            backend.id,
            before.value,
            after.value,
            why,
            more,
        )

    def calm(self, pool: str, backend: Backend) -> None:
        """Make up for what was left out, once the period is over."""
        told = self._told.get((pool, backend.id))
        if told is None or self._clock() - told.since < PERIOD_S:
            return
        del self._told[pool, backend.id]
        if told.unsaid:
            level = logging.WARNING if backend.status in _BAD else logging.INFO
            unsaid, status = told.unsaid, backend.status.value
            _log.log(level, "pool %s: backend %s: %s, after %d changes not logged", pool, backend.id, status, unsaid)

    def forget(self, pool: str, backend: str) -> None:
        """The backend is gone for good."""
        self._told.pop((pool, backend), None)
