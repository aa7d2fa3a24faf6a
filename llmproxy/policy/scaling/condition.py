"""A parsed condition with what it must remember: since when each `for` holds, and the samples of each window.

A signal that is unknown makes its comparison unknown, and that a condition does not hold on: what nobody measured must
neither add nor remove a replica. A window counts once it is full, so the first second of traffic is no average of a
minute.
"""

from collections import deque
from collections.abc import Callable, Mapping
from math import ceil, isfinite

from llmproxy.policy.scaling.expression import Compare, Held, Not, Number, Operand, Over, Tree, Value, parse
from llmproxy.policy.scaling.tokens import Unit

Values = Callable[[str], float | None]
"""A signal's value now; None when it is unknown."""

_SLACK = 0.05
"""A window or a `for` is full this share early: evaluations do not fall on the very second."""


class Condition:
    """`holds` at every evaluation, also while nobody cares for the answer: it keeps time."""

    def __init__(self, text: str, signals: Mapping[str, Unit]) -> None:
        """Raises `ExpressionError`."""
        self.text = text
        self._tree = parse(text, signals)
        self._since: dict[int, float] = {}
        self._windows: dict[int, deque[tuple[float, float]]] = {}

    def holds(self, values: Values, now: float) -> bool:
        """Whether it holds at `now`."""
        return self._judge(self._tree, values, now) is True

    def _judge(self, tree: Tree, values: Values, now: float) -> bool | None:
        if isinstance(tree, Compare):
            return _compared(self._value(tree.left, values, now), tree.sign, self._value(tree.right, values, now))
        if isinstance(tree, Not):
            inner = self._judge(tree.inner, values, now)
            return None if inner is None else not inner
        if isinstance(tree, Held):
            return self._held(tree, self._judge(tree.inner, values, now), now)
        # Everyone is asked, not only up to the first that decides: each keeps time of its own.
        found = [self._judge(part, values, now) for part in tree.parts]
        decides = not tree.every
        if decides in found:
            return decides
        return None if None in found else tree.every

    def _held(self, tree: Held, inner: bool | None, now: float) -> bool | None:
        if not inner:
            self._since.pop(id(tree), None)
            return inner
        return now - self._since.setdefault(id(tree), now) >= tree.for_s * (1 - _SLACK)

    def _value(self, operand: Operand, values: Values, now: float) -> float | None:
        if isinstance(operand, Number):
            return operand.value
        found = values(operand.name)
        if found is not None and not isfinite(found):
            found = None
        return found if isinstance(operand, Value) else self._over(operand, found, now)

    def _over(self, operand: Over, found: float | None, now: float) -> float | None:
        """The function over the window, or None while the window is not full."""
        samples = self._windows.setdefault(id(operand), deque())
        if found is not None:
            samples.append((now, found))
        begins = now - operand.window_s
        # The last sample before the window's begin stays: it says that the window is full.
        while len(samples) > 1 and samples[1][0] <= begins:
            samples.popleft()
        if not samples or samples[0][0] > begins + _SLACK * operand.window_s:
            return None
        inside = [value for at, value in samples if at > begins]
        return _FUNCTIONS[operand.function](inside) if inside else None


def _compared(left: float | None, sign: str, right: float | None) -> bool | None:
    if left is None or right is None:
        return None
    return _COMPARE[sign](left, right)


def _quantile(share: float) -> Callable[[list[float]], float]:
    def of(samples: list[float]) -> float:
        return sorted(samples)[max(ceil(share * len(samples)), 1) - 1]

    return of


def _average(samples: list[float]) -> float:
    return sum(samples) / len(samples)


_FUNCTIONS: Mapping[str, Callable[[list[float]], float]] = {
    "avg": _average,
    "min": min,
    "max": max,
    "p50": _quantile(0.50),
    "p90": _quantile(0.90),
    "p95": _quantile(0.95),
    "p99": _quantile(0.99),
}
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": float.__lt__,
    "<=": float.__le__,
    ">": float.__gt__,
    ">=": float.__ge__,
    "==": float.__eq__,
    "!=": float.__ne__,
}
