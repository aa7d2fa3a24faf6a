"""More than the fleet can take: what is still answered in time, with admission and without.

Capacity is the highest load at which 90 % of the requests keep the SLO under `expected_cost` without admission (no
other policy takes more), searched for anew with each seed; the overload is a multiple of it. What is shed has failed.
With admission, requests go through the production queue with its defaults and the SLO as its objective; deadlines are
what it makes of the SLO and of what it has learned of the engines, not the simulator's own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.routing.experiments import OURS, Conditions
from bench.routing.replay import ATTAINMENT, Row, highest, replay
from bench.routing.targets import Spread, figures, ratio, spread
from llmproxy.policy.admission.deadline import Slo
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.sim.score import SLO_DEFAULT, parse_slo
from llmproxy.sim.trace import Arrival

ADMISSION: Final = "admission"
"""Label of `expected_cost` with admission."""
OVERLOADS: Final = {"overload-1.4": 1.4, "overload-1.7": 1.7}
"""Name -> multiple of the capacity."""
TARGETS: Final = {"overload-1.4": 1.5, "overload-1.7": 5.0}
"""Goodput, as a multiple of the best competitor's without admission."""


@dataclass(frozen=True, slots=True)
class OverloadTask:
    """All policies with one seed, as they share its capacity."""

    policies: tuple[str, ...]
    seed: int


def run(trace: Sequence[Arrival], jitter_s: float, task: OverloadTask) -> list[Row]:
    """A row for each policy and overload."""
    conditions, seed = Conditions(), task.seed
    slo = parse_slo(SLO_DEFAULT)
    options = AdmissionOptions(slo=Slo(slo.ttft_s, slo.ttft_scaled, slo.tpot_s))

    def fits(load: float) -> bool:
        return replay(trace, jitter_s, OURS, conditions, load, seed).slo_attainment >= ATTAINMENT

    capacity = highest(fits)
    rows: list[Row] = []
    for name, times in OVERLOADS.items():
        for label in (ADMISSION, *task.policies):
            policy, admission = (OURS, options) if label == ADMISSION else (label, None)
            found = replay(trace, jitter_s, policy, conditions, capacity * times, seed, admission)
            load = round(capacity * times, 4)
            rows.append({"experiment": name, "policy": label, "seed": seed, "load": load, **asdict(found)})
    return rows


def print_overload(console: Console, rows: Sequence[Row]) -> None:
    """Goodput down the policies, and how it compares with the best of the others."""
    for name, times in OVERLOADS.items():
        own = [row for row in rows if row["experiment"] == name]
        if not own:
            continue
        load = spread(row["load"] for row in own)
        assert load is not None
        title = f"{name}: {times:g}x of capacity ({load.mean:.2f}x the trace's rate); what is shed counts as failed"
        table = Table(title=title, title_justify="left")
        for column in ("policy", "goodput req/s", "in SLO %", "shed", "TTFT p90 s", "TPOT p99 ms"):
            table.add_column(column, justify="left" if column == "policy" else "right")
        for policy in dict.fromkeys(row["policy"] for row in own):
            cells = [
                _mean(rows, name, policy, figure, factor, digits)
                for figure, factor, digits in (
                    ("goodput_rps", 1, 2),
                    ("slo_attainment", 100, 1),
                    ("shed", 1, 0),
                    ("ttft_p90_s", 1, 2),
                    ("tpot_p99_s", 1e3, 0),
                )
            ]
            table.add_row(policy, *cells)
        console.print(table)
        best = best_other(rows, name)
        if best is not None:
            other, found = best
            met = "[green]met[/]" if found.mean >= TARGETS[name] else "[red]missed[/]"
            text = f"{found.mean:.2f} ({found.min:.2f}-{found.max:.2f}) times the goodput of {other}"
            console.print(f"{name}: {text}; aimed at {TARGETS[name]:g}: {met}", highlight=False)


def best_other(rows: Sequence[Row], name: str) -> tuple[str, Spread] | None:
    """The policy without admission with the most goodput, ours among them, and by how much admission exceeds it."""
    ours = figures(rows, name, ADMISSION, "goodput_rps")
    others = {row["policy"] for row in rows if row["experiment"] == name} - {ADMISSION}
    found = {other: one for other in others if (one := ratio(ours, figures(rows, name, other, "goodput_rps")))}
    if not found:
        return None
    least = min(found, key=lambda other: found[other].mean)
    return least, found[least]


def _mean(rows: Sequence[Row], name: str, policy: str, figure: str, factor: float, digits: int) -> str:
    found = spread([value * factor for value in figures(rows, name, policy, figure).values()])
    return "-" if found is None else f"{found.mean:.{digits}f}"
