"""Proxy CPU per streamed chunk: 200 streams of 25 chunks a second, each chunk sent by the upstream on its own.

Taken over a window in the middle of the streams, so heads and endings are not in it. `reads/chunk` near 1 says that
chunks reached the client one by one; well below 1, somebody joined them, and CPU per chunk flatters.
"""

import time

from bench.loadgen import LoadFailed
from bench.measure.base import Figure, Measure
from bench.session import Running, Session, Values

_STEP = 13 / 200  # of a period between the starts of two streams: no two of the 200 send in the same moment
_LOST = ("cut", "malformed", "bad_status", "refused", "answered")


def take(session: Session, up: Running) -> Values:
    scale = session.scale
    rate, streams = scale.streams_chunks_per_s, up.scaled(scale.streams_open)
    ramp_ms = 1000 / rate * streams * _STEP
    with session.load.hold(
        port=up.port,
        clients=streams,
        chunks=100_000,
        chunk_rate=rate,
        ttft_us=50_000,
        ramp_ms=ramp_ms,
    ) as held:
        held.mark()
        before = held.mark()
        with session.measuring(up) as measured:
            time.sleep(scale.streams_s)
        after = held.mark()
    if any(after[name] for name in _LOST):
        raise LoadFailed("streams ended early")
    events = after["events"] - before["events"]
    return {
        "cpu_us": measured.cpu_s * 1e6 / events,
        "reads_per_chunk": (after["reads"] - before["reads"]) / events,
        "gap_p99_ms": after["gap_us"]["p99"] / 1e3,
        "others_share": measured.others_share,
    }


MEASURE = Measure(
    name="streams",
    title="Paced streams (200 x 25 chunks a second)",
    figures=(
        Figure("cpu_us", "CPU us/chunk", ratios=True),
        Figure("reads_per_chunk", "reads/chunk", 2),
        Figure("gap_p99_ms", "gap p99 ms (40 sent)", 2),
    ),
    rounds=lambda scale: scale.streams_rounds,
    take=take,
)
