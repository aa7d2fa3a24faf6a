"""How much of the machine somebody else used, and how long a lab stood still: a bound missed on a busy machine may say
nothing of the proxy."""

import asyncio
import os
import resource
import time
from pathlib import Path
from types import TracebackType

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)
"""Fields of /proc/stat: idle and iowait."""
_GUEST = 8
"""From here on, time that is in earlier fields already."""


class NoiseMeter:
    """Since it was made. Counts our own CPU as that of this process and of the children it has seen end."""

    def __init__(self) -> None:
        self._busy_s, self._own_s, self._began_at = _busy_s(), _own_s(), time.monotonic()

    def others_share(self) -> float:
        """The part of all cores that others used, 0 to 1."""
        capacity_s = (time.monotonic() - self._began_at) * (os.cpu_count() or 1)
        return max(0.0, (_busy_s() - self._busy_s) - (_own_s() - self._own_s)) / capacity_s


class StandStill:
    """`with StandStill() as still:` inside a loop; `still.for_s` is how long that did nothing at all, in pieces of more
    than a second: the process was stopped, or got no core."""

    _LOOK_S = 0.2
    _LATE_S = 1.0

    def __init__(self) -> None:
        self.for_s = 0.0
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> "StandStill":
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next.cancel()

    def _look(self) -> None:
        late_s = time.monotonic() - self._due
        self.for_s += late_s if late_s > self._LATE_S else 0.0
        self._wait()

    def _wait(self) -> None:
        self._due = time.monotonic() + self._LOOK_S
        self._next = self._loop.call_later(self._LOOK_S, self._look)


def _busy_s() -> float:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(ticks for place, ticks in enumerate(fields[:_GUEST]) if place not in _IDLE) * _TICK_S


def _own_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
