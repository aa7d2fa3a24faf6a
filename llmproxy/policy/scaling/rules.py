"""`rules` and `hold`: conditions as operators write them.

    - rules: {up: "queue_depth > 50 or p95_latency > 800ms", down: "queue_depth < 5 for 5m"}
    - hold: {up: "avg(queue_depth) > 5 for 60s", down: "queue_depth == 0 for 10m"}

A condition that fires wants the actual number of replicas plus (or minus) `step`, and wants that for `period`; if it
fires still, it then wants another step. Both at once: up wins. When neither fires there is no opinion. `hold` is the
same thing under the name of what its conditions are about.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.condition import Condition
from llmproxy.policy.scaling.named import units, value_of
from llmproxy.policy.scaling.options import Seconds

_NEVER: Final = float("-inf")
_UP_PERIOD: Final = Seconds(60.0)
_DOWN_PERIOD: Final = Seconds(120.0)


def _condition(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} must be a condition, such as queue_depth > 50")
    Condition(value, units())
    return value


@dataclass(frozen=True, slots=True)
class RulesOptions:
    up: str = field(default="", metadata={"read": _condition})
    down: str = field(default="", metadata={"read": _condition})
    step: int = 1
    """Replicas added or removed each time."""
    up_period: Seconds = _UP_PERIOD
    down_period: Seconds = _DOWN_PERIOD

    def __post_init__(self) -> None:
        if not self.up and not self.down:
            raise ValueError("needs `up`, `down` or both")
        if self.step < 1:
            raise ValueError("step must be at least 1")


class _Trigger:
    """One of the two directions."""

    def __init__(self, text: str, by: int, period_s: float, policy: str) -> None:
        self._condition = Condition(text, units()) if text else None
        self._by = by
        self._period_s = period_s
        self._policy = policy
        self._fired_at = _NEVER
        self._target = 0

    def want(self, signals: Signals, now: float) -> Wanted | None:
        condition = self._condition
        if condition is None:
            return None
        fires = condition.holds(lambda name: value_of(signals, name), now)
        since_s = now - self._fired_at
        if fires and since_s >= self._period_s:
            self._fired_at = now
            self._target = max(signals.actual + self._by, 0)
        elif since_s >= self._period_s or (self._by < 0 and not fires):
            # A step up stands for its period whatever happens; one down only as long as there is reason for it.
            return None
        change = f"{'+' if self._by > 0 else '-'}{abs(self._by)}"
        return Wanted(self._target, f"{change}: {condition.text}", self._policy)


class Rules:
    """Up on one condition, down on another."""

    options_type: ClassVar[type] = RulesOptions
    policy: ClassVar[str] = "rules"

    def __init__(self, options: RulesOptions) -> None:
        self._up = _Trigger(options.up, options.step, options.up_period, self.policy)
        self._down = _Trigger(options.down, -options.step, options.down_period, self.policy)

    def want(self, signals: Signals, now: float) -> Wanted | None:
        up = self._up.want(signals, now)
        # Asked in any case: its conditions keep time.
        down = self._down.want(signals, now)
        return up or down


class Hold(Rules):
    """`rules` whose conditions say how long they must hold."""

    policy: ClassVar[str] = "hold"
