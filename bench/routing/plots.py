"""`python -m bench.routing.plots ROWS.jsonl ...`: the plots of docs/routing.md and the README, from recorded runs.

The same rows give the same files. Bars need the experiments `equal` and `mixed`, curves `loads`.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from bench.routing.experiments import OURS, POLICIES
from bench.routing.replay import ATTAINMENT, Row
from bench.routing.targets import Spread, figures, spread
from llmproxy.sim.report.scale import Linear, up_to
from llmproxy.sim.report.style import plot_style
from llmproxy.sim.report.svg import Plot, plain, series

_OUT: Final = Path(__file__).resolve().parents[2] / "docs" / "img"
_NAMES: Final[Mapping[str, str]] = {
    "sglang": "SGLang router",
    "smg": "SMG",
    "llm_d": "llm-d",
    "llm_d_live": "llm-d, live gauges",
    "aibrix": "AIBrix",
    "dynamo": "Dynamo",
    "lmetric": "LMetric",
    "chwbl": "bounded-load hashing",
}
_STYLE: Final = ".bar.other { fill: var(--soft); fill-opacity: .45; } .strong { fill: var(--ink); font-weight: 600; }\n"
_ROW_HEIGHT: Final = 26
_LABELS_WIDTH: Final = 160
_LEAST_SHOWN: Final = 50.0
"""Percent within the SLO."""

Column = tuple[str, str, float, int]
"""Title, figure, factor, and digits behind the point."""

_BARS: Final[Mapping[str, tuple[str, str, Sequence[Column]]]] = {
    "routing-p90": (
        "equal",
        "TTFT p90 by policy",
        [("p90 of the time to the first token, seconds", "ttft_p90_s", 1.0, 2)],
    ),
    "routing-ttft": (
        "equal",
        "TTFT p50, p90 and p99 by policy",
        [
            ("TTFT p50, seconds", "ttft_p50_s", 1.0, 2),
            ("p90, seconds", "ttft_p90_s", 1.0, 1),
            ("p99, seconds", "ttft_p99_s", 1.0, 1),
        ],
    ),
    "routing-mixed": (
        "mixed",
        "TTFT by policy, two fast and six slow backends",
        [
            ("TTFT mean, seconds", "ttft_mean_s", 1.0, 2),
            ("p90, seconds", "ttft_p90_s", 1.0, 1),
            ("p99, seconds", "ttft_p99_s", 1.0, 1),
        ],
    ),
    "routing-hits": (
        "equal",
        "Prefix cache hits and requests within the SLO by policy",
        [
            ("prompt tokens found in a cache, %", "hit_rate", 100.0, 1),
            ("requests within the SLO, %", "slo_attainment", 100.0, 1),
        ],
    ),
}


def bars(rows: Sequence[Row], experiment: str, title: str, columns: Sequence[Column]) -> str:
    """A row for each policy, by its p90; a panel for each column. Strokes reach from the least seed to the largest."""
    rows = [row for row in rows if row["experiment"] == experiment]
    p90s = {policy: figures(rows, experiment, policy, "ttft_p90_s") for policy in POLICIES}
    p90 = {policy: fmean(own.values()) for policy, own in p90s.items() if own}
    policies = sorted(p90, key=lambda policy: p90[policy])
    plot = Plot(title, None, Linear(0, 1), height=_ROW_HEIGHT * len(policies) + 56)
    for place, policy in enumerate(policies):
        style = "strong end" if policy == OURS else "label end"
        plot.text(style, _LABELS_WIDTH - 8, _middle(plot, place) + 4, _NAMES.get(policy, policy))
    width = (plot.width - _LABELS_WIDTH) / len(columns)
    for number, column in enumerate(columns):
        found = {policy: _over_seeds(rows, experiment, policy, column) for policy in policies}
        _panel(plot, found, column, _LABELS_WIDTH + width * number, width - 58)
    return plot.alone(plot_style() + _STYLE)


def _over_seeds(rows: Sequence[Row], experiment: str, policy: str, column: Column) -> Spread:
    _, figure, factor, _ = column
    found = spread(value * factor for value in figures(rows, experiment, policy, figure).values())
    return found or Spread(0.0, 0.0, 0.0)


def _panel(plot: Plot, found: Mapping[str, Spread], column: Column, left: float, width: float) -> None:
    title, _, _, digits = column
    scale = up_to([own.max for own in found.values()])
    bottom = plot.top + _ROW_HEIGHT * len(found)
    for tick in scale.ticks()[:: 2 if len(scale.ticks()) > 5 else 1]:
        x = left + scale.place(tick) * width
        plot.line("grid", x, plot.top, x, bottom)
        plot.text("tick middle", x, bottom + 16, plain(tick))
    plot.text("tick middle", left + width / 2, bottom + 34, title)
    for place, (policy, own) in enumerate(found.items()):
        middle = _middle(plot, place)
        least, most = (left + scale.place(value) * width for value in (own.min, own.max))
        tip = f"{_NAMES.get(policy, policy)}: {own.mean:.{digits}f} ({own.min:.{digits}f}-{own.max:.{digits}f})"
        style = f"bar {series(0)}" if policy == OURS else "bar other"
        plot.bar(style, left, middle - 8, scale.place(own.mean) * width, 16, tip)
        plot.line("whisker", least, middle, most, middle)
        plot.text("strong" if policy == OURS else "label", most + 6, middle + 4, f"{own.mean:.{digits}f}")


def _middle(plot: Plot, place: int) -> float:
    return plot.top + _ROW_HEIGHT * (place + 0.5)


def _attained(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """For each policy the loads, and the share of requests within the SLO in percent, means over the seeds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for policy in POLICIES:
        by_load: dict[float, list[float]] = {}
        for row in rows:
            if row["experiment"] == "loads" and row["policy"] == policy:
                by_load.setdefault(row["load"], []).append(100 * row["slo_attainment"])
        if by_load:
            found[policy] = [(load, fmean(shares)) for load, shares in sorted(by_load.items())]
    return found


def curves(rows: Sequence[Row]) -> str:
    """Requests within the SLO against the load, for each policy as far as it is half of them."""
    found = _attained(rows)
    loads = sorted({load for points in found.values() for load, _ in points})
    x = Linear(loads[0] - 0.02, loads[-1] + 0.02)
    plot = Plot("Requests within the SLO by load", x, Linear(_LEAST_SHOWN, 100), height=420)
    plot.top = 66
    plot.axes("load (times the trace's rate)", "requests within the SLO", " %", x_ticks=loads)
    plot.line("mean", plot.left, plot.y(100 * ATTAINMENT), plot.right, plot.y(100 * ATTAINMENT))
    for place, (policy, points) in enumerate(found.items()):
        style, inside = series(place), [(load, share) for load, share in points if share >= _LEAST_SHOWN]
        plot.path(style, [(plot.x(load), plot.y(share)) for load, share in inside])
        for load, share in inside:
            tip = f"{_NAMES.get(policy, policy)} at load {load:.2f}: {share:.1f} %"
            plot.dot(f"dot {style}", plot.x(load), plot.y(share), tip, 3.5)
        left, y = 14 + 168 * (place % 5), 14 + 20 * (place // 5)
        plot.path(style, [(left, y), (left + 22, y)])
        plot.text("strong" if policy == OURS else "label", left + 28, y + 4, _NAMES.get(policy, policy))
    return plot.alone(plot_style() + _STYLE)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.routing.plots", description=__doc__)
    parser.add_argument("rows", type=Path, nargs="+", help="what `python -m bench.routing --json` wrote")
    parser.add_argument("--out", type=Path, default=_OUT, help="folder for the plots (default: docs/img)")
    options = parser.parse_args(given)
    rows: list[Row] = [json.loads(line) for path in options.rows for line in path.read_text().splitlines()]
    files = {}
    names = {row["experiment"] for row in rows}
    for name, (experiment, title, columns) in _BARS.items():
        if experiment in names:
            files[name] = bars(rows, experiment, title, columns)
    if "loads" in names:
        files["routing-load"] = curves(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.out / f"{name}.svg").write_text(text)
        print(options.out / f"{name}.svg")
    return 0 if files else 2


if __name__ == "__main__":
    sys.exit(main())
