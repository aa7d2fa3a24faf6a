"""Numbers as they stand in traces, and CSV columns by name. Everything raises ValueError in words."""

import csv
import math
import re
from calendar import timegm
from collections.abc import Mapping, Sequence

_TOKENS_MAX = 10**9
_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,12}))?\s*(?:Z|UTC|([+-])(\d\d):?(\d\d))?", re.ASCII
)


def tokens(value: object, name: str, least: int = 0) -> int:
    """A count of tokens: a whole number, which may be written as a float (`12.0`)."""
    number = seconds(value, name)
    if number != int(number) or not least <= number <= _TOKENS_MAX:
        raise ValueError(f"{name}: {_shown(value)} is not a whole number of at least {least}")
    return int(number)


def seconds(value: object, name: str) -> float:
    """Any finite number."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: {_shown(value)} is not a number")
    return number


def moment(value: object, name: str) -> float:
    """Unix seconds of a date and time such as `2023-11-16 18:15:46.6805900` or `2026-01-31T09:00:00.250Z`."""
    match = _MOMENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{name}: {_shown(value)} is not a date and time")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(f"{name}: there is no such moment as {_shown(value)}")
    at = timegm((year, month, day, hour, minute, second)) + float(f"0.{match[7] or 0}")
    if match[8] is None:
        return at
    offset = int(match[9]) * 3600 + int(match[10]) * 60
    return at - offset if match[8] == "+" else at + offset


class Columns:
    """The columns of a CSV file by name, in any order, upper or lower case."""

    def __init__(self, head: str) -> None:
        self._places = {name: index for index, name in enumerate(names_in(head))}
        self.width = len(self._places)

    def row(self, line: str) -> Mapping[str, str]:
        """The cells of a line by column."""
        cells = cells_of(line)
        if len(cells) < self.width:
            raise ValueError(f"{len(cells)} columns where the head has {self.width}")
        return {name: cells[place] for name, place in self._places.items()}


def names_in(head: str) -> list[str]:
    """The names of the columns in a CSV file's first line."""
    return [cell.strip().lower() for cell in cells_of(head)]


def cells_of(line: str) -> Sequence[str]:
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader((line,)), [])
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
