"""Conditions as operators write them, parsed to a tree; nothing is ever evaluated as code.

    gpu_utilization > 70% or p95_latency > 800ms or queue_depth > 50
    gpu_utilization < 35% for 5m and queue_depth < 5
    avg(queue_depth) > 5 for 60s
    p95(queue_wait, 5m) > 2s and not (requests_per_s == 0 for 10m)

`or` binds weakest, then `and`, then `not`; `for` belongs to the comparison or the parentheses before it, which must
have held all that time. Behind a function without a window of its own `for` is that window: the third line is about
the average over the last minute. Units are checked here: a time is compared with a time, a share with a share.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from llmproxy.policy.scaling.tokens import ExpressionError, Kind, Token, Unit, tokens

WINDOW_S: Final = 60.0
"""What a function looks back over when nobody says."""
WINDOW_MAX_S: Final = 86400.0
"""Every sample of it is kept."""
DEPTH_MAX: Final = 30
FUNCTIONS: Final = ("avg", "min", "max", "p50", "p90", "p95", "p99")
COMPARISONS: Final = ("<", "<=", ">", ">=", "==", "!=")
_RESERVED: Final = frozenset({"and", "or", "not", "for"})


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Value:
    """A signal, as it is now."""

    name: str


@dataclass(frozen=True, slots=True)
class Over:
    """`function` of the signal `name` over the last `window_s` seconds."""

    function: str
    name: str
    window_s: float


Operand = Number | Value | Over


@dataclass(frozen=True, slots=True)
class Compare:
    left: Operand
    sign: str
    right: Operand


@dataclass(frozen=True, slots=True)
class Not:
    inner: "Tree"


@dataclass(frozen=True, slots=True)
class Both:
    """All of them (`every`), or any of them."""

    every: bool
    parts: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class Held:
    """`inner` has held for `for_s` seconds."""

    inner: "Tree"
    for_s: float


Tree = Compare | Not | Both | Held


def parse(text: str, signals: Mapping[str, Unit]) -> Tree:
    """The tree of `text`; `signals` are the names it may use, with what they count. Raises `ExpressionError`."""
    parser = _Parser(tokens(text), signals)
    tree = parser.any_of(0)
    parser.expect_end()
    return tree


def names(tree: Tree) -> Iterator[str]:
    """The signals that `tree` looks at, once for each time."""
    if isinstance(tree, Compare):
        yield from (side.name for side in (tree.left, tree.right) if not isinstance(side, Number))
    elif isinstance(tree, Both):
        for part in tree.parts:
            yield from names(part)
    else:
        yield from names(tree.inner)


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, found: list[Token], signals: Mapping[str, Unit]) -> None:
        self._tokens = found
        self._at = 0
        self._signals = signals

    # -- the grammar -----------------------------------------------------------------------------------------------

    def any_of(self, depth: int) -> Tree:
        parts = [self._all_of(depth)]
        while self._took("or"):
            parts.append(self._all_of(depth))
        return parts[0] if len(parts) == 1 else Both(False, tuple(parts))

    def expect_end(self) -> None:
        left = self._next
        if left.kind is not Kind.END:
            raise ExpressionError(f"'and' or 'or' must stand before {left.text!r}", left.column)

    def _all_of(self, depth: int) -> Tree:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Both(True, tuple(parts))

    def _one(self, depth: int) -> Tree:
        if depth > DEPTH_MAX:
            raise ExpressionError(f"nested more than {DEPTH_MAX} deep", self._next.column)
        if self._took("not"):
            return Not(self._one(depth + 1))
        if self._took("("):
            tree = self.any_of(depth + 1)
            self._expect(")")
            for_s = self._for()
            return tree if for_s is None else Held(tree, for_s)
        return self._comparison()

    def _comparison(self) -> Tree:
        first = self._next
        left, left_unit, left_open = self._operand()
        sign = self._take()
        if sign.text not in COMPARISONS:
            raise ExpressionError(f"a comparison ({', '.join(COMPARISONS)}) must follow {first.text!r}", sign.column)
        second = self._next
        right, right_unit, right_open = self._operand()
        if isinstance(left, Number) and isinstance(right, Number):
            raise ExpressionError("a comparison of two numbers never changes", first.column)
        if self._next.text in COMPARISONS:
            raise ExpressionError("one comparison at a time: join them with 'and'", self._next.column)
        _check_units(first, left, left_unit, second, right, right_unit)
        begins = self._next
        for_s = self._for()
        if for_s is None:
            return Compare(left, sign.text, right)
        if left_open or right_open:
            _check_window(for_s, begins)
            return Compare(_over(left, left_open, for_s), sign.text, _over(right, right_open, for_s))
        return Held(Compare(left, sign.text, right), for_s)

    def _operand(self) -> tuple[Operand, Unit, bool]:
        """What it is, what it counts, and whether a `for` behind may still be its window."""
        token = self._take()
        if token.kind is Kind.NUMBER:
            return Number(token.value), token.unit, False
        if token.kind is not Kind.NAME or token.word in _RESERVED:
            what = "the end" if token.kind is Kind.END else repr(token.text)
            raise ExpressionError(f"a signal or a number must stand here, not {what}", token.column)
        if self._next.text != "(":
            return Value(token.text), self._unit(token), False
        if token.word not in FUNCTIONS:
            hint = _hint(token.word, FUNCTIONS)
            raise ExpressionError(f"there is no function {token.text!r}{hint or _listed(FUNCTIONS)}", token.column)
        self._expect("(")
        name = self._take()
        if name.kind is not Kind.NAME:
            raise ExpressionError(f"{token.text} is of a signal", name.column)
        unit = self._unit(name)
        begins = self._next
        window_s = self._duration() if self._took(",") else None
        _check_window(window_s or 0.0, begins)
        self._expect(")")
        return Over(token.word, name.text, window_s or WINDOW_S), unit, window_s is None

    def _for(self) -> float | None:
        return self._duration() if self._took("for") else None

    def _duration(self) -> float:
        """`5m`, or `1m 30s`."""
        first = self._next
        seconds = 0.0
        while self._next.kind is Kind.NUMBER and self._next.unit is Unit.SECONDS:
            seconds += self._take().value
        if not seconds:
            raise ExpressionError("a time such as 60s or 5m must stand here, longer than nothing", first.column)
        return seconds

    # -- tokens ----------------------------------------------------------------------------------------------------

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        if token.kind is not Kind.END:
            self._at += 1
        return token

    def _took(self, word: str) -> bool:
        """Step over `word` if it stands here."""
        token = self._next
        found = token.kind in (Kind.NAME, Kind.SIGN) and token.word == word
        self._at += found
        return found

    def _expect(self, sign: str) -> None:
        token = self._next
        if not self._took(sign):
            what = "the end" if token.kind is Kind.END else repr(token.text)
            raise ExpressionError(f"{sign!r} must stand here, not {what}", token.column)

    def _unit(self, name: Token) -> Unit:
        unit = self._signals.get(name.text)
        if unit is None:
            hint = _hint(name.text, self._signals) or _listed(sorted(self._signals))
            raise ExpressionError(f"there is no signal {name.text!r}{hint}", name.column)
        return unit


def _check_window(window_s: float, begins: Token) -> None:
    if window_s > WINDOW_MAX_S:
        raise ExpressionError("a function looks back over a day at most", begins.column)


def _over(side: Operand, is_open: bool, window_s: float) -> Operand:
    return Over(side.function, side.name, window_s) if is_open and isinstance(side, Over) else side


def _check_units(first: Token, left: Operand, left_unit: Unit, second: Token, right: Operand, right_unit: Unit) -> None:
    """A bare number beside a time or a share is a mistake about the unit, unless it is 0."""
    if left_unit is right_unit or Unit.ANY in (left_unit, right_unit):
        return
    if any(isinstance(side, Number) and side.value == 0 for side in (left, right)):
        return
    number, unit = (second, left_unit) if isinstance(right, Number) else (first, right_unit)
    if isinstance(left, Number) or isinstance(right, Number):
        percent = f"{number.value * 100:g}%" if number.value <= 1 else f"{number.text}%"
        how = {Unit.SECONDS: f"write {number.text}ms or {number.text}s", Unit.SHARE: f"write {percent}"}.get(unit)
        bare = number.unit is Unit.PLAIN and how is not None
        advice = f": {how}" if bare else f", and {number.text} is not"
        raise ExpressionError(f"the signal is {unit.value}{advice}", number.column)
    raise ExpressionError(f"{left_unit.value} cannot be compared with {right_unit.value}", second.column)


def _hint(name: str, known: Mapping[str, Unit] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _listed(known: tuple[str, ...] | list[str]) -> str:
    return f", only {', '.join(known)}"
