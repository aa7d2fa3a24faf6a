"""What is measured, one file each. A measure says which figures it gives and how one peer's turn is taken.

`fresh` measures start the peer for the turn alone, because what ran before would change the answer (memory); the
others share peers that stay up, the burst last.
"""

from bench.measure import burst, memory, requests, rps, streams, ttft
from bench.measure.base import Figure, Measure

MEASURES: tuple[Measure, ...] = (
    requests.MEASURE,
    streams.MEASURE,
    ttft.MEASURE,
    rps.MEASURE,
    burst.MEASURE,
    memory.MEASURE,
)

__all__ = ["MEASURES", "Figure", "Measure"]
