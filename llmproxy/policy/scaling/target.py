"""`target`: as many replicas as bring a signal to a value.

    - target: {signal: in_flight_per_replica, value: 24, tolerance: 0.1}

The wanted number is what serves now times the signal over its target, rounded up: right for what is shared out among
replicas, as utilisation and anything per replica is. Within `tolerance` of the target nothing changes, so that noise
moves nobody. Replicas on their way count as there already: the signal will fall when they come.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import ClassVar, Final

from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.named import amount, check_amount, known_signal, value_of
from llmproxy.policy.scaling.options import Share
from llmproxy.policy.scaling.tokens import Unit

_TOLERANCE: Final = Share(0.1)


def _amount(value: object) -> tuple[float, Unit]:
    found = amount(value)
    if found[0] <= 0:
        raise ValueError(f"{value!r} must be more than 0")
    return found


@dataclass(frozen=True, slots=True)
class TargetOptions:
    signal: str = field(metadata={"read": known_signal})
    value: tuple[float, Unit] = field(metadata={"read": _amount})
    tolerance: Share = _TOLERANCE

    def __post_init__(self) -> None:
        check_amount(self.signal, self.value)
        if self.tolerance >= 1:
            raise ValueError("tolerance must be less than 100%")


class Target:
    """Keeps the signal near its target."""

    options_type: ClassVar[type] = TargetOptions

    def __init__(self, options: TargetOptions) -> None:
        self._options = options
        self._value = options.value[0]

    def want(self, signals: Signals, now: float) -> Wanted | None:
        options = self._options
        value = value_of(signals, options.signal)
        if value is None or not signals.ready:
            return None
        needed = signals.ready * value / self._value
        if abs(needed - signals.actual) <= options.tolerance * signals.actual:
            near = f"{options.signal} is {value:.3g}, near {self._value:g}"
            return Wanted(signals.actual, near, "target")
        # The sliver keeps 3.0000000001 from being rounded up to 4.
        wanted = ceil(needed - 1e-9)
        return Wanted(wanted, f"{options.signal} is {value:.3g}, to be {self._value:g}", "target")
