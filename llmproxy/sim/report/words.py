"""The figures as people read them: which columns there are, and how their numbers are written."""

from dataclasses import dataclass
from typing import Final, Literal

from llmproxy.sim.summary import Spread


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of `Score` under its title."""

    figure: str
    title: str
    kind: Literal["seconds", "milliseconds", "share", "rate", "count"]


COLUMNS: Final = (
    Column("ttft_mean_s", "TTFT mean", "seconds"),
    Column("ttft_p50_s", "p50", "seconds"),
    Column("ttft_p90_s", "p90", "seconds"),
    Column("ttft_p99_s", "p99", "seconds"),
    Column("tpot_p99_s", "TPOT p99", "milliseconds"),
    Column("hit_rate", "hit rate", "share"),
    Column("slo_attainment", "in SLO", "share"),
    Column("goodput_rps", "goodput", "rate"),
    Column("shed", "shed", "count"),
)


def shown(spread: Spread, column: Column) -> str:
    """Such as `1.38 s ±0.02`; a dash for nothing."""
    if spread.mean is None:
        return "-"
    factor, unit = {
        "seconds": (1.0, " s"),
        "milliseconds": (1e3, " ms"),
        "share": (100.0, " %"),
        "rate": (1.0, "/s"),
        "count": (1.0, ""),
    }[column.kind]
    value = spread.mean * factor
    digits = _digits(value, column)
    # Nothing shed by any seed needs no doubt.
    certain = spread.deviation is None or (column.kind == "count" and not spread.deviation)
    apart = "" if certain or spread.deviation is None else f" ±{spread.deviation * factor:.{digits}f}"
    return f"{value:,.{digits}f}{unit}{apart}"


def _digits(value: float, column: Column) -> int:
    """Three that matter, and no more behind the point than that."""
    if column.kind == "count":
        return 0
    if column.kind in ("share", "milliseconds") or value >= 100:
        return 1
    return 2 if value >= 1 else 3
