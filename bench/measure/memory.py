"""Resident memory of 1,000 open streams, of a proxy that was just started and warmed up.

What grows when 1,000 clients hold a stream open, kernel socket buffers not counted, divided by 1,000.
"""

import time

from bench.measure.base import Figure, Measure
from bench.session import Running, Session, Values

_SETTLE_S = 1.5


def take(session: Session, up: Running) -> Values:
    streams = up.scaled(session.scale.memory_streams)
    before = up.resident_bytes()
    with session.load.hold(port=up.port, clients=streams, chunks=100_000, chunk_rate=1, ttft_us=200_000, ramp_ms=1000):
        time.sleep(_SETTLE_S)  # each stream has now had a paced chunk or two
        during = up.resident_bytes()
    return {
        "kb_per_stream": (during - before) / streams / 1024,
        "before_mb": before / 1024**2,
        "during_mb": during / 1024**2,
    }


MEASURE = Measure(
    name="memory",
    title="Memory (1,000 open streams)",
    figures=(
        Figure("kb_per_stream", "KiB/stream", ratios=True),
        Figure("before_mb", "MiB before"),
        Figure("during_mb", "MiB with streams"),
    ),
    rounds=lambda scale: scale.memory_rounds,
    take=take,
    fresh=True,
)
