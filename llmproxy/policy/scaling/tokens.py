"""The words of a condition: names, numbers with a unit, operators; each with the column it stands at."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

LENGTH_MAX: Final = 2000
_WORD: Final = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>%|[A-Za-z]+)?(?![\w.])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)"
    r"|(?P<sign><=|>=|==|!=|<|>|\(|\)|,|=)"
)
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Unit(Enum):
    """What a number counts. The value is how a message calls it."""

    PLAIN = "a plain number"
    SECONDS = "a time"
    SHARE = "a share"
    ANY = "anything"
    """Nobody knows: an outside query's result."""


class ExpressionError(ValueError):
    """A condition that cannot be used; `column` counts from 1 in its text."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"{message} (column {column})")
        self.column = column


class Kind(Enum):
    """What a token is; the value is how a message calls it."""

    NUMBER = "a number"
    NAME = "a name"
    SIGN = "a sign"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """`text` as written (words that matter to the grammar are lower case in `word`). Of a number also its `value`, in
    seconds or as a share where its unit says so."""

    kind: Kind
    text: str
    column: int
    value: float = 0.0
    unit: Unit = Unit.PLAIN

    @property
    def word(self) -> str:
        return self.text.lower()


def tokens(text: str) -> list[Token]:
    """Everything in `text`, and an END behind it. Raises `ExpressionError`."""
    if len(text) > LENGTH_MAX:
        raise ExpressionError(f"longer than {LENGTH_MAX} characters", LENGTH_MAX)
    found: list[Token] = []
    position = 0
    while position < len(text):
        match = _WORD.match(text, position)
        if match is None:
            raise ExpressionError(f"{text[position]!r} means nothing here", position + 1)
        if match["number"] is not None:
            found.append(_number(match, position + 1))
        elif match["name"] is not None:
            found.append(Token(Kind.NAME, match["name"], position + 1))
        elif match["sign"] is not None:
            sign = match["sign"]
            if sign == "=":
                raise ExpressionError("a comparison for equality is written ==", position + 1)
            found.append(Token(Kind.SIGN, sign, position + 1))
        position = match.end()
    found.append(Token(Kind.END, "", len(text) + 1))
    return found


def _number(match: re.Match[str], column: int) -> Token:
    text, unit = match[0], match["unit"]
    value = float(match["number"])
    if unit is None:
        return Token(Kind.NUMBER, text, column, value)
    if unit == "%":
        return Token(Kind.NUMBER, text, column, value / 100, Unit.SHARE)
    if unit.lower() not in _SECONDS:
        raise ExpressionError(f"{text!r}: numbers may end in %, us, ms, s, m, h or d", column)
    return Token(Kind.NUMBER, text, column, value * _SECONDS[unit.lower()], Unit.SECONDS)
