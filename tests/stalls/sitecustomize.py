"""On PYTHONPATH, Python runs this at its start: each uvloop of this process, and of those it starts, stalls at random.

A busy machine does the same to a test, seldom: what was to come first comes last, and ten timers are due at once. See
`make test-stalls`. `STALLS` is the seed; `STALLS_MAX_S` (0.06) the longest stall, most are far shorter; between two lie
`STALLS_GAP_S` (0.006) on average.
"""

import contextlib
import os
import random
import sys
import time
from typing import Any


def _stall(seed: str) -> None:
    import uvloop

    longest_s = float(os.environ.get("STALLS_MAX_S", 0.06))
    gap_s = float(os.environ.get("STALLS_GAP_S", 0.006))
    rng = random.Random(f"{seed} {sys.argv[:1]} {os.environ.get('PYTEST_CURRENT_TEST', '')}")
    begin = uvloop.Loop.__init__

    def begin_stalled(loop: Any, *given: Any, **named: Any) -> None:
        begin(loop, *given, **named)

        def stall() -> None:
            time.sleep(longest_s * rng.random() ** 3)
            again()

        def again() -> None:
            if rng.random() < 0.3:
                loop.call_soon(stall)
            else:
                loop.call_later(rng.expovariate(1 / gap_s), stall)

        again()

    uvloop.Loop.__init__ = begin_stalled


if os.environ.get("STALLS"):
    # Another Python than ours has no uvloop.
    with contextlib.suppress(ImportError):
        _stall(os.environ["STALLS"])
