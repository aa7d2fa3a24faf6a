"""How much of everything a run does. Two sizes: the full one for figures, the quick one to see that all works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Times in seconds unless the name says otherwise."""

    requests_rounds: int = 5
    requests_s: float = 3.0
    requests_per_s: int = 2000
    requests_clients: int = 32
    streams_rounds: int = 4
    streams_s: float = 4.0
    streams_open: int = 200
    streams_chunks_per_s: int = 25
    ttft_rounds: int = 6
    ttft_requests: int = 200
    ttft_engine_ms: int = 5
    rps_rounds: int = 3
    rps_s: float = 3.0
    rps_clients: int = 64
    memory_rounds: int = 2
    memory_streams: int = 1000
    burst_rounds: int = 3
    burst_clients: int = 2000


FULL = Scale()
QUICK = Scale(
    requests_rounds=2,
    requests_s=1.5,
    streams_rounds=2,
    streams_s=1.5,
    ttft_rounds=2,
    ttft_requests=100,
    rps_rounds=1,
    rps_s=1.5,
    memory_rounds=1,
    burst_rounds=1,
)
