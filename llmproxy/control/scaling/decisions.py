"""What was decided, from what and why: the last ones of each pool for the admin API, and counts for the metrics."""

import logging
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from llmproxy.policy.scaling.decision import Decision

KEPT: Final = 500
_log = logging.getLogger("llmproxy.control.scaling")


@dataclass(frozen=True, slots=True)
class Record:
    """A decision in its place. `acts` is false in a proxy that does not lead, in a dry run and during a pause."""

    unix_s: float
    decision: Decision
    acts: bool

    @property
    def policy(self) -> str:
        """Whose opinion won; `none` when nobody had one."""
        return self.decision.wanted.policy if self.decision.wanted is not None else "none"


class Decisions:
    """One pool's. What repeats the one before is not kept again, so that the log of a quiet night stays readable; the
    latest is always shown."""

    def __init__(self, pool: str) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By pool, policy and direction (`up`, `down`, `same`)."""
        self.latest: Record | None = None
        self._pool = pool
        self._kept: deque[Record] = deque(maxlen=KEPT)

    def add(self, record: Record) -> None:
        decision, latest = record.decision, self.latest
        change = decision.change
        direction = "up" if change > 0 else "down" if change < 0 else "same"
        self.counts[self._pool, record.policy, direction] += 1
        self.latest = record
        if latest is None or change or decision.alerts or _gist(record) != _gist(latest):
            self._kept.append(record)
        if change:
            text = "pool %s: %d -> %d replicas%s: %s"
            idle = "" if record.acts else " (not acted upon)"
            _log.info(text, self._pool, decision.signals.actual, decision.replicas, idle, decision.reason)
        for alert in decision.alerts:
            _log.warning("pool %s: %s", self._pool, alert)

    def shown(self) -> list[dict[str, Any]]:
        """For the admin API, the newest first."""
        records = list(reversed(self._kept))
        if self.latest is not None and self.latest is not records[0]:
            records.insert(0, self.latest)
        return [_view(record) for record in records]


def _gist(record: Record) -> tuple[object, ...]:
    """What makes two decisions that change nothing different ones."""
    decision = record.decision
    wanted = decision.wanted.replicas if decision.wanted is not None else None
    return record.acts, record.policy, wanted, decision.replicas, decision.limits


def _view(record: Record) -> dict[str, Any]:
    decision = record.decision
    return {
        "at": round(record.unix_s, 3),
        "before": decision.signals.actual,
        "replicas": decision.replicas,
        "policy": record.policy,
        "reason": decision.reason,
        "tiers": dict(decision.tiers) or None,
        "limits": list(decision.limits),
        "alerts": list(decision.alerts),
        "acted_upon": record.acts,
        "opinions": [
            {"policy": one.policy, "replicas": one.replicas, "reason": one.reason} for one in decision.opinions
        ],
        "signals": _known(asdict(decision.signals)),
    }


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is unknown."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = _known(value)
        if value is None or value == {} or value == ():
            continue
        found[name] = round(value, 6) if isinstance(value, float) else value
    return found
