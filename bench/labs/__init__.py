"""Labs: experiments on real processes, each figure against a bound that a user would care about.

Theory of operation. A lab starts `llmproxy emulate` and `llmproxy serve` as their users do, drives a bounded load over
loopback from this process, does one thing to them (kills an engine, sends a signal, leaves), and returns `Finding`s:
what was found and the bound it is held against. What must never happen (a request that is dropped) has the bound 0;
times have bounds that a person would call prompt, with room for a machine that is busy with other things. Beside a
time stands what makes it mean something, such as how many requests were retried at all.

The tests hold labs of their own for what must be true; how fast it is true belongs here, because a test must not
depend on the machine. Engines are emulated with known times, so that what is found is the proxy's part.

Everything belongs to a `Stage`, which ends it, by process id, whatever happens. One file a lab.
"""

from bench.labs import (
    gap,
    hang,
    kill,
    leave,
    leavers,
    limits,
    limits_cost,
    limits_exact,
    overload,
    reload,
    scaling,
    shutdown,
    spread,
)
from bench.labs.base import Finding, Lab

LABS: tuple[Lab, ...] = (
    spread.LAB,
    kill.LAB,
    shutdown.LAB,
    reload.LAB,
    leave.LAB,
    gap.LAB,
    hang.LAB,
    limits.LAB,
    scaling.LAB,
    limits_cost.LAB,
    limits_cost.EACH_LAB,
    limits_exact.LAB,
    overload.LAB,
    overload.BLIND_LAB,
    leavers.LAB,
)

__all__ = ["LABS", "Finding", "Lab"]
