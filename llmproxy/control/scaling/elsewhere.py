"""The traffic of the other proxies over the same fleet, added to this one's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from llmproxy.control.scaling.reports import Report


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at one moment; all only grow."""

    at: float
    arrived: float
    done: float
    failed: float
    shed: float
    prompt: float
    prefill: float
    completion: float
    ttft: tuple[int, ...]
    e2e: tuple[int, ...]


_COUNTERS: Final = tuple(field.name for field in fields(Sample) if field.name not in ("at", "ttft", "e2e"))


class Elsewhere:
    """Sums up by how much each one's counters grew, so that proxies may come and go."""

    def __init__(self) -> None:
        self.waiting = 0
        self.wait_s: float | None = None
        self.in_flight = 0
        self.awaited: dict[str, int] = {}
        """By tier of capacity: requests that wait for it."""
        self.sessions: dict[str, int] = {}
        """By replica: those that live there."""
        self._tiers: dict[str, list[float]] = {}
        self._before: dict[str, Report] = {}
        self._counters = [0.0] * len(_COUNTERS)
        self._histograms: list[list[int]] = [[], []]

    def take(self, reports: Mapping[str, Report]) -> None:
        """What those that are there said last."""
        for name, report in reports.items():
            before = self._before.get(name)
            if before is not None and before is not report:
                _grow(self._counters, report.counters, before.counters)
                for sums, now, then in zip(self._histograms, report.histograms, before.histograms, strict=False):
                    sums.extend([0] * (len(now) - len(sums)))
                    _grow(sums, now, then)
                for tier, counted in report.tiers.items():
                    _grow(self._tiers.setdefault(tier, [0.0, 0.0]), counted[:2], before.tiers.get(tier, (0.0, 0.0)))
        self._before = dict(reports)
        self.waiting = sum(report.waiting for report in reports.values())
        self.wait_s = max((one.wait_s for one in reports.values() if one.wait_s is not None), default=None)
        self.in_flight = sum(count for report in reports.values() for _, count in report.at.values())
        self.sessions = {}
        for id, sessions in ((id, one) for report in reports.values() for id, one in report.sessions.items()):
            self.sessions[id] = self.sessions.get(id, 0) + sessions
        self.awaited = {}
        for tier, (_, _, waiting) in ((tier, row) for report in reports.values() for tier, row in report.tiers.items()):
            self.awaited[tier] = self.awaited.get(tier, 0) + waiting

    def of_tier(self, tier: str) -> tuple[float, float]:
        """Requests whose prompt fits no smaller one, and their tokens; both only grow."""
        requests, tokens = self._tiers.get(tier, (0.0, 0.0))
        return requests, tokens

    def added_to(self, own: Sample) -> Sample:
        """`own` with theirs in it."""
        counted = {name: getattr(own, name) + more for name, more in zip(_COUNTERS, self._counters, strict=True)}
        return replace(own, **counted, ttft=self._added(0, own.ttft), e2e=self._added(1, own.e2e))

    def _added(self, which: int, own: tuple[int, ...]) -> tuple[int, ...]:
        sums = self._histograms[which]
        if len(sums) != len(own):
            # Without a request of its own a proxy does not know the buckets; what came before it does is not counted.
            sums.clear()
            return own
        return tuple(one + more for one, more in zip(own, sums, strict=True))


def counters_of(sample: Sample) -> list[float]:
    """As a report carries them."""
    return [getattr(sample, name) for name in _COUNTERS]


def _grow(sums: list[Any], now: Sequence[Any], then: Sequence[Any]) -> None:
    for index, (late, early) in enumerate(zip(now, then, strict=False)):
        if index < len(sums):
            sums[index] += max(late - early, 0)
