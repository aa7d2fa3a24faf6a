"""The arithmetic of limits, in whole numbers, so that Python and Redis's Lua come to the same result to the last digit.

A bucket's state is (`level`, `rest`, `at_ms`): whole units in it, a fraction in `MINUTE_MS`ths of a unit, and when that
was. In `d` milliseconds a bucket of `rate` a minute gains `d * rate / MINUTE_MS` units; the fraction is kept, so no
sequence of looks, however fast, loses or invents anything. A level below zero is a debt, paid by refilling.

`share` divides a bucket among that many processes which cannot speak with each other; its fraction is then in
`MINUTE_MS * share`ths.
"""

MINUTE_MS = 60_000
DAY_MS = 86_400_000
LEASE_WAIT_MS = 1_000
"""What to say when all leases are out: nobody knows when one comes back."""


def refill(
    level: int, rest: int, at_ms: int, rate: int, burst: int, now_ms: int, share: int = 1
) -> tuple[int, int, int]:
    """The state at `now_ms`. A clock that goes back by less than a minute waits for itself; by more, it starts anew."""
    if now_ms < at_ms:
        if at_ms - now_ms > MINUTE_MS:
            at_ms = now_ms
        else:
            now_ms = at_ms
    scale = MINUTE_MS * share
    gained = (now_ms - at_ms) * rate + rest
    if gained >= (burst - level) * scale:
        return burst, 0, now_ms
    return level + gained // scale, gained % scale, now_ms


def wait_ms(level: int, rest: int, rate: int, amount: int, share: int = 1) -> int:
    """How long until `amount` is there; 0 when it is."""
    if amount <= level:
        return 0
    missing = (amount - level) * (MINUTE_MS * share) - rest
    return (missing + rate - 1) // rate if missing > 0 else 0


def month_of(ms: int) -> int:
    """Months between January 1970 and the time `ms` (UTC)."""
    days = ms // DAY_MS + 719_468
    era_day = days % 146_097
    year = (era_day - era_day // 1_460 + era_day // 36_524 - era_day // 146_096) // 365
    march_month = (5 * (era_day - (365 * year + year // 4 - year // 100)) + 2) // 153
    return (days // 146_097 * 400 + year - 1970) * 12 + march_month + 2


def month_start_ms(month: int) -> int:
    """When the month began that is `month` after January 1970."""
    year, march_month = divmod(month - 2 + 1970 * 12, 12)
    era, year = divmod(year, 400)
    days = (153 * march_month + 2) // 5 + 365 * year + year // 4 - year // 100
    return (era * 146_097 + days - 719_468) * DAY_MS


def period_of(monthly: bool, ms: int) -> int:
    """The number of the day or month that the time `ms` is in."""
    return month_of(ms) if monthly else ms // DAY_MS


def period_end_ms(monthly: bool, period: int) -> int:
    """When it is over."""
    return month_start_ms(period + 1) if monthly else (period + 1) * DAY_MS
