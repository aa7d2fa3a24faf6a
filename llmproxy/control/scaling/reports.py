"""What each proxy says of its own traffic to a pool, so that whoever leads sizes the fleet for all of it, and stops no
replica that another proxy is still at.

A report is text in a shared table under the proxy's name: counters that only grow, what waits, how many requests it
has at which replica in which stage, and how many sessions live there. A proxy whose report does not change any more is
gone; its clock is not asked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llmproxy.control.scaling.fleet import Stage
from llmproxy.control.scaling.tables import Table

LOST_AFTER_S: Final = 5.0
_FORGOTTEN_AFTER_S: Final = 60.0
_WORKING: Final = frozenset({Stage.STARTING.value, Stage.WARMING.value, Stage.SERVING.value})


@dataclass(frozen=True, slots=True)
class Report:
    counters: Sequence[float] = ()
    histograms: Sequence[Sequence[int]] = ()
    waiting: int = 0
    wait_s: float | None = None
    at: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """By replica: its stage, and the requests there."""
    tiers: Mapping[str, tuple[float, float, int]] = field(default_factory=dict)
    """By tier of capacity: requests whose prompt fits no smaller one and their tokens, which only grow, and how many
    wait for it."""
    sessions: Mapping[str, int] = field(default_factory=dict)
    """By replica: those that live there, where there are any."""


@dataclass(slots=True)
class _Seen:
    text: str
    since: float
    report: Report


class Reports:
    """`mine` is this proxy's name; no other has it."""

    def __init__(self, table: Table, mine: str) -> None:
        self._table = table
        self._mine = mine
        self._number = 0
        self._seen: dict[str, _Seen] = {}

    def say(self, report: Report) -> None:
        self._number += 1
        at = {id: (*row, report.sessions.get(id, 0)) for id, row in report.at.items()}
        told = [report.counters, report.histograms, report.waiting, report.wait_s, at, report.tiers]
        self._table.put(self._mine, json.dumps([self._number, *told]))

    def leave(self) -> None:
        self._table.put(self._mine, None)

    def hear(self, now: float) -> None:
        """Take over what the table says."""
        texts = {name: text for name, text in self._table.values.items() if name != self._mine}
        for name, text in texts.items():
            seen = self._seen.get(name)
            if seen is None or seen.text != text:
                report = _report(text)
                if report is not None:
                    self._seen[name] = _Seen(text, now, report)
            elif now - seen.since > _FORGOTTEN_AFTER_S:
                self._table.put(name, None)
        for name in self._seen.keys() - texts.keys():
            del self._seen[name]

    def others(self, now: float) -> dict[str, Report]:
        """By name, of those that are there."""
        return {name: one.report for name, one in self._seen.items() if now - one.since <= LOST_AFTER_S}

    def have_left(self, replica: str, now: float) -> bool:
        """Whether no other proxy is at `replica`, or might still send anything there."""
        rows = [report.at.get(replica) for report in self.others(now).values()]
        return all(row is None or (row[0] not in _WORKING and not row[1]) for row in rows)


def _report(text: str) -> Report | None:
    try:
        _, counters, histograms, waiting, wait_s, at, tiers = json.loads(text)
        return Report(
            [float(one) for one in counters],
            [[int(count) for count in one] for one in histograms],
            int(waiting),
            None if wait_s is None else float(wait_s),
            {str(id): (str(row[0]), int(row[1])) for id, row in _rows(at)},
            {str(tier): (float(row[0]), float(row[1]), int(row[2])) for tier, row in _rows(tiers)},
            {str(id): int(row[2]) for id, row in _rows(at) if len(row) > 2 and row[2]},
        )
    except (ValueError, TypeError, IndexError, AttributeError):
        return None


def _rows(at: Any) -> Any:
    return at.items()
