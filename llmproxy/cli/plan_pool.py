"""`llmproxy plan --config`: which replica-hours a pool could drop at the same service."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from llmproxy.advising import Job, Unadvised, advise, advise_on, by_minute, job_of
from llmproxy.config import ConfigError, load
from llmproxy.config.scaling import ScalingConfig
from llmproxy.config.units import parse_duration
from llmproxy.policies import check_policy
from llmproxy.policy.routing.options import suggestion
from llmproxy.policy.scaling.sizing import parse_rate
from llmproxy.scaling_parts import history_of
from llmproxy.sim.scaling.traffic import arrivals, read_rates
from llmproxy.sim.traces import TraceError
from llmproxy.sim.traces.access_log import began_unix_s
from llmproxy.stores.history import HistoryError

COLD_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options as they were typed."""

    config: Path
    pool: str | None
    traffic: Path | None
    per_replica: str | None
    cold_start: str | None
    json: Path | None


def plan_pool(wanted: Wanted) -> None:
    """Raises ValueError in words."""
    name, settings = _pool(wanted)
    try:
        found = _advice(wanted, name, settings)
        if wanted.json is not None:
            wanted.json.write_text(json.dumps({"pool": name, **found}) + "\n", encoding="utf-8")
    except (Unadvised, TraceError, HistoryError) as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    _show(name, found)


def _advice(wanted: Wanted, name: str, settings: ScalingConfig) -> dict[str, Any]:
    per_replica = None if wanted.per_replica is None else option("--per-replica", parse_rate, wanted.per_replica)
    cold_start_s = settings.cold_start or COLD_START_S
    if wanted.cold_start is not None:
        cold_start_s = option("--cold-start", parse_duration, wanted.cold_start)

    def job(rates: list[float], unix_s: float) -> Job:
        return job_of(settings, rates, unix_s, per_replica=per_replica, cold_start_s=cold_start_s)

    with Console(stderr=True).status("replaying"):
        if wanted.traffic is None:
            points = history_of(name, settings).read(name, 0)
            if not points:
                raise Unadvised(f"nothing is kept of pool {name}'s traffic yet: name a file with --traffic")
            return advise(job(*by_minute(points)))
        rates = read_rates(wanted.traffic, name)
        minutes = [window.rate for window, end in rates.spans() for _ in range(int((end - window.start_s) // 60))]
        planned = job(minutes, began_unix_s(wanted.traffic))
        return advise_on(planned, arrivals(rates, rates.mean, Random(0)))  # noqa: S311


def _pool(wanted: Wanted) -> tuple[str, ScalingConfig]:
    try:
        pools = load(wanted.config, check_policy=check_policy).pools
    except ConfigError as error:
        raise ValueError(str(error)) from None
    scaled = {name: pool.scaling for name, pool in pools.items() if pool.scaling is not None}
    name = wanted.pool or (next(iter(scaled)) if len(scaled) == 1 else None)
    if name is None:
        names = ", ".join(scaled) or "none"
        raise ValueError(f"say which pool with --pool (scaled in {wanted.config}: {names})")
    if name not in scaled:
        raise ValueError(f"--pool: {wanted.config} scales no pool {name!r}{suggestion(name, scaled)}")
    return name, scaled[name]


def _show(name: str, found: dict[str, Any]) -> None:
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=120)
    hours, attained, kept = found["replica_hours"], found["slo_attained"], found["slo_kept"]
    out.print(f"Pool {name}, {found['hours_replayed']:,.1f} h of its traffic: {hours:,.1f} replica-hours,", end=" ")
    out.print(f"{attained:.2%} in time")
    if found["share_of_time_at_max"] > 0.01:
        out.print(f"At `max` for {found['share_of_time_at_max']:.0%} of the time.")
    for what in found["not_replayed"]:
        out.print(f"Not replayed: {what}.", markup=False)
    if not found["recommendations"]:
        out.print(f"Nothing found that saves hours and keeps {kept:.2%} in time.")
        return
    table = Table("change", title=f"What keeps {kept:.2%} in time with fewer replica-hours", title_justify="left")
    for head in ("saves", "of all", "in time"):
        table.add_column(head, justify="right")
    rows = list(found["recommendations"])
    if found["together"] is not None:
        rows.append({**found["together"], "change": f"together: {found['together']['change']}"})
    for row in rows:
        saved = f"{row['replica_hours_saved']:,.1f} h"
        table.add_row(row["change"], saved, f"{row['share_saved']:.1%}", f"{row['slo_attained']:.2%}")
    out.print(table, markup=False)


def option(name: str, parse: Callable[[str], float], text: str) -> float:
    """`text` parsed; ValueError names the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
