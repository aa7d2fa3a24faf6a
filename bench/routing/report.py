"""Tables for people, JSON lines for the record."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.routing.experiments import EXPERIMENTS, OURS, POLICIES
from bench.routing.replay import Row
from bench.routing.targets import Spread, figures, ratio, spread, verdicts

_IN_SLO: Final = "slo_attainment"
_COLUMNS: Final = (
    ("load", "load", 1.0, 2, False),
    ("TTFT mean s", "ttft_mean_s", 1.0, 2, True),
    ("p50", "ttft_p50_s", 1.0, 2, False),
    ("p90", "ttft_p90_s", 1.0, 2, True),
    ("p99", "ttft_p99_s", 1.0, 2, True),
    ("TPOT p99 ms", "tpot_p99_s", 1e3, 0, True),
    ("hits %", "hit_rate", 100.0, 1, False),
    ("in SLO %", _IN_SLO, 100.0, 1, False),
)
"""Title, figure, factor, digits, and whether ours is shown as a ratio to it."""


def print_experiment(console: Console, rows: Sequence[Row], name: str) -> None:
    """Policies down, figures across: means over the seeds, and behind them ours as a ratio to it."""
    searched = not EXPERIMENTS[name].loads
    table = Table(title=f"{name}: {EXPERIMENTS[name].title}", title_justify="left")
    table.add_column("policy")
    columns = [column for column in _COLUMNS if searched or column[1] != "load"]
    for title, figure, _, _, compared in columns:
        table.add_column(title, justify="right")
        if (compared and not searched) or figure == "load":
            table.add_column("ours/", justify="right", style="dim")
    for policy in POLICIES:
        cells = []
        for _, figure, factor, digits, compared in columns:
            own = figures(rows, name, policy, figure)
            cells.append(_show(spread([value * factor for value in own.values()]), digits))
            if (compared and not searched) or figure == "load":
                cells.append("" if policy == OURS else _show(ratio(figures(rows, name, OURS, figure), own), 2))
        if any(cell not in ("", "-") for cell in cells):
            table.add_row(policy, *cells)
    console.print(table)


def print_loads(console: Console, rows: Sequence[Row], name: str) -> None:
    """Policies down, loads across: requests within the SLO."""
    table = Table(title=f"{name}: {EXPERIMENTS[name].title}, requests within the SLO, %", title_justify="left")
    table.add_column("policy")
    by_load = {load: [row for row in rows if row["load"] == load] for load in EXPERIMENTS[name].loads}
    for load in by_load:
        table.add_column(f"{load:g}", justify="right")
    for policy in POLICIES:
        found = [figures(own, name, policy, _IN_SLO) for own in by_load.values()]
        if any(found):
            table.add_row(policy, *(_show(spread([100 * share for share in own.values()]), 1) for own in found))
    console.print(table)


def print_targets(console: Console, rows: Sequence[Row]) -> None:
    table = Table(title=f"Targets for {OURS}: ratios, mean over the seeds (smallest-largest)", title_justify="left")
    for title in ("target", "found", ""):
        table.add_column(title)
    found = verdicts(rows)
    for verdict in found:
        mark = {True: "[green]met[/]", False: "[red]missed[/]", None: "-"}[verdict.met]
        if not verdict.judged:
            mark = {True: "met, though stricter", False: "stricter: missed", None: "-"}[verdict.met]
        table.add_row(verdict.text, _show(verdict.found, 3, spread=True), mark)
    console.print(table)
    if all(verdict.judged for verdict in found):
        return
    console.print(
        "llm_d reads what vLLM publishes, once a step, every 50 ms: targets are judged by that. llm_d_live reads how\n"
        "things are at that moment, which no engine publishes: a stricter rival than the real one.",
        highlight=False,
    )


def save(rows: Sequence[Row], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _show(value: Spread | None, digits: int, spread: bool = False) -> str:
    if value is None:
        return "-"
    text = f"{value.mean:.{digits}f}"
    return f"{text} ({value.min:.{digits}f}-{value.max:.{digits}f})" if spread else text
