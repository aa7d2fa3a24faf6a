"""Files of request rates, or of requests, as arrivals in each second."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, isfinite, sqrt
from pathlib import Path
from random import Random
from statistics import fmean, median, pstdev
from typing import Final

from llmproxy.sim.trace import Arrival
from llmproxy.sim.traces.lines import Lines, TraceError, UnknownFormat
from llmproxy.sim.traces.numbers import Columns, names_in, seconds
from llmproxy.sim.traces.registry import read_trace

CV_MAX: Final = 10.0
"""Above this a window's CV tells of a pause in the recording, which is in the rates already, and not of bursts."""
WINDOW_MAX_S: Final = 86400.0
SECONDS_MAX: Final = 60 * 86400
_TRACE_WINDOW_S: Final = 60.0
_NORMAL_FROM: Final = 12.0
_START, _RATE = "window_start_s", "req_per_s"


@dataclass(frozen=True, slots=True)
class Window:
    """`rate` requests a second from `start_s` on; `cv` of the gaps between them."""

    start_s: float
    rate: float
    cv: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What a file says: windows in order of time, and how long the last one is. `bad` lines could not be read."""

    name: str
    windows: tuple[Window, ...]
    end_s: float
    bad: int = 0
    first_bad: str = ""

    @property
    def mean(self) -> float:
        """Requests a second, over all of it."""
        total = sum(window.rate * (end - window.start_s) for window, end in self.spans())
        return total / (self.end_s - self.windows[0].start_s)

    def spans(self) -> Iterator[tuple[Window, float]]:
        """Each window and when it ends."""
        ends = [window.start_s for window in self.windows[1:]] + [self.end_s]
        return zip(self.windows, ends, strict=True)


def read_rates(path: Path, pool: str | None = None) -> Rates:
    """A CSV file with the columns `window_start_s,req_per_s` (and one with `cv` in its name), or any request trace (of
    our access log: what went to `pool`). Raises `TraceError`."""
    with closing(Lines(path)) as lines:
        first = lines.peek(1)
        if first and {_START, _RATE} <= set(names_in(first[0])):
            return _by_window(path, lines)
    try:
        return _by_request(path, pool)
    except UnknownFormat as error:
        raise TraceError(f"{error}; nor CSV with {_START},{_RATE}") from None


def arrivals(rates: Rates, mean: float, rng: Random) -> list[int]:
    """How many arrive in each second, at a `mean` rate: negative binomial, with variance cv^2 times the mean, and
    Poisson where the CV is 1 or less."""
    whole = rates.mean
    if whole <= 0:
        raise TraceError(f"{rates.name}: no request in it")
    if not isfinite(whole):
        raise TraceError(f"{rates.name}: more requests than can be counted")
    counts: list[int] = []
    for window, end in rates.spans():
        rate = window.rate / whole * mean
        excess = min(window.cv, CV_MAX) ** 2 - 1
        ticks = round(end - rates.windows[0].start_s) - len(counts)
        counts.extend(_drawn(rate, excess, rng) for _ in range(ticks))
    return counts


def _drawn(rate: float, excess: float, rng: Random) -> int:
    if rate <= 0:
        return 0
    if excess > 0.01:
        rate = rng.gammavariate(rate / excess, excess)
    if rate >= _NORMAL_FROM:
        return max(int(rng.gauss(rate, sqrt(rate)) + 0.5), 0)
    limit, product, count = exp(-rate), rng.random(), 0
    while product > limit:
        count += 1
        product *= rng.random()
    return count


def _by_window(path: Path, lines: Lines) -> Rates:
    head = lines.until(lambda line: True)
    columns = Columns(head)
    cv_column = next((name for name in names_in(head) if "cv" in name), None)

    def parse(line: str) -> Window:
        row = columns.row(line)
        start, rate = seconds(row[_START], _START), seconds(row[_RATE], _RATE)
        cv = seconds(row[cv_column], cv_column) if cv_column and row[cv_column].strip() else 1.0
        if rate < 0 or cv < 0:
            raise ValueError(f"{_RATE if rate < 0 else cv_column}: {min(rate, cv)} is less than nothing")
        return Window(start, rate, cv)

    windows = sorted(lines.parsed(parse), key=lambda window: window.start_s)
    if not windows:
        raise TraceError(f"{path}: no window in it{f', the first bad line: {lines.first_bad}' if lines.bad else ''}")
    gaps = [later.start_s - sooner.start_s for sooner, later in pairwise(windows)]
    if 0 in gaps:
        raise TraceError(f"{path}: two windows begin at the same second")
    length = median(gaps) if gaps else _TRACE_WINDOW_S
    end_s = windows[-1].start_s + length
    if end_s - windows[0].start_s > SECONDS_MAX or max(gaps, default=0) > WINDOW_MAX_S:
        raise TraceError(f"{path}: longer than 60 days, or a window longer than a day")
    return Rates(path.name, tuple(windows), end_s, lines.bad, lines.first_bad)


def _by_request(path: Path, pool: str | None) -> Rates:
    trace = read_trace(path, pool=pool)
    length = ceil((trace.arrivals[-1].at_s + 1e-9) / _TRACE_WINDOW_S) * _TRACE_WINDOW_S
    if length > SECONDS_MAX:
        raise TraceError(f"{path}: longer than 60 days")
    buckets: list[list[float]] = [[] for _ in range(max(int(length / _TRACE_WINDOW_S), 1))]
    for one in trace.arrivals:
        buckets[min(int(one.at_s / _TRACE_WINDOW_S), len(buckets) - 1)].append(one.at_s)
    cv = _cv(trace.arrivals)
    windows = [
        Window(number * _TRACE_WINDOW_S, len(bucket) / _TRACE_WINDOW_S, cv) for number, bucket in enumerate(buckets)
    ]
    return Rates(trace.name, tuple(windows), len(buckets) * _TRACE_WINDOW_S, trace.bad, trace.first_bad)


def _cv(trace: Sequence[Arrival]) -> float:
    """Of the gaps between arrivals; 1 where there are too few to tell."""
    gaps = [later.at_s - sooner.at_s for sooner, later in pairwise(trace)]
    mean = fmean(gaps) if len(gaps) >= 20 else 0.0
    return pstdev(gaps, mean) / mean if mean > 0 else 1.0
