"""What an emulated server counts: engine figures for `/metrics`, and what tests ask for in `/emulator/state`."""

from bisect import bisect_left
from collections import Counter, deque

TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
ITL_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_BOUNDS_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip

_REMEMBERED_IDS = 1000


class Histogram:
    """Counts by upper bound; the last count is what exceeds every bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Stats:
    """Written by the requests' lives; read by the metrics page and the control routes."""

    def __init__(self) -> None:
        self.ttft_s = Histogram(TTFT_BOUNDS_S)
        self.itl_s = Histogram(ITL_BOUNDS_S)
        self.e2e_s = Histogram(REQUEST_BOUNDS_S)
        self.queue_s = Histogram(REQUEST_BOUNDS_S)
        self.finished: Counter[str] = Counter(stop=0, length=0, abort=0, error=0, repetition=0)
        """Sequences by `finished_reason`."""
        self.rejected: Counter[str] = Counter(max_num_queued_reqs=0, max_num_queued_tokens=0)
        """Requests refused at the door, by reason."""

        self.received = 0
        self.in_flight = 0
        self.served = 0
        """Requests answered whole, in whatever way they were asked for (also with an error that the emulator means)."""
        self.aborted = 0
        """Requests whose client left before the end."""
        self.faulted = 0
        """Requests that met a fault which decided how they began or ended."""
        self.received_ids: deque[str] = deque(maxlen=_REMEMBERED_IDS)
        self.served_ids: deque[str] = deque(maxlen=_REMEMBERED_IDS)
        self.aborted_ids: deque[str] = deque(maxlen=_REMEMBERED_IDS)
