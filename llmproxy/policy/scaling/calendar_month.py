"""Which hour and which month (UTC) a moment lies in, from Unix seconds alone."""

from calendar import monthrange, timegm
from typing import Final

HOUR_S: Final = 3600.0
_DAY_S: Final = 86400.0
_EPOCH_SHIFT: Final = 719468
"""Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar."""


def hour_of(unix_s: float) -> tuple[float, float]:
    """Begin and end of the hour."""
    begin = unix_s // HOUR_S * HOUR_S
    return begin, begin + HOUR_S


def month_of(unix_s: float) -> tuple[float, float]:
    """Begin and end of the calendar month."""
    days = int(unix_s // _DAY_S) + _EPOCH_SHIFT
    era, day_of_era = divmod(days, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    month = month + 3 if month < 10 else month - 9
    year = year_of_era + era * 400 + (month <= 2)
    begin = float(timegm((year, month, 1, 0, 0, 0)))
    return begin, begin + monthrange(year, month)[1] * _DAY_S
