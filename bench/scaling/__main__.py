"""`python -m bench.scaling`: our scaling beside others' rules, at equal SLO (see bench/scaling/README.md)."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.scaling.daily import FIXED, day
from bench.scaling.frontier import Point, best, hours_at
from bench.scaling.grids import GRIDS, Entry, entries
from bench.scaling.play import Traffic, play
from llmproxy.sim.scaling.race import CLAIRVOYANT, Result
from llmproxy.sim.traces import TraceError

_RATES = Path(__file__).resolve().parents[3] / "shared" / "traces" / "servegen_language_m-small_rate10min.csv.gz"
_OURS = "demand"


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--rates", type=Path, default=_RATES, help="default: ServeGen m-small in ../shared/traces")
    parser.add_argument("--cold-start", type=int, default=120, metavar="S")
    parser.add_argument("--days", type=float, metavar="N", help="only so much of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a third of the options: to see that all works")
    parser.add_argument("--rivals", default=",".join(GRIDS), help=f"comma-separated (default: {','.join(GRIDS)})")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="PATH", help="one line for each set of options")
    options = parser.parse_args(given)
    options.rivals = [name.strip() for name in options.rivals.split(",") if name.strip()]
    unknown = [name for name in options.rivals if name not in GRIDS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)} (known: {', '.join(GRIDS)})")
    return options


def _played(options: argparse.Namespace, wanted: Sequence[Entry | str]) -> Iterator[tuple[Entry | str, Result]]:
    traffic = Traffic(options.rates, options.cold_start, options.days, options.seed)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(play, traffic, entry) for entry in wanted]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main(given: Sequence[str] | None = None) -> int:
    options = _arguments(given)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    wanted = [_OURS, CLAIRVOYANT, *(entry for name in options.rivals for entry in entries(name, options.quick))]
    points: dict[str, list[Point]] = {}
    rows = []
    try:
        for entry, result in _played(options, wanted):
            name, kind = (entry, {}) if isinstance(entry, str) else (entry.rival, asdict(entry.options))
            label = ", ".join(f"{key} {value:g}" for key, value in kind.items())
            points.setdefault(name, []).append(Point(result.slo_attained, result.replica_hours, label))
            rows.append({**asdict(result), "controller": name, "options": kind})
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    _show(console, points)
    one = day()
    console.print(
        f"Daily case: {one.replica_hours:.1f} replica-hours, {one.saved:.0%} fewer than {FIXED} fixed servers;"
        f" {one.in_slo:.3%} within the SLO, {one.late:g} late in the morning spike"
    )
    return 0


def _show(console: Console, points: dict[str, list[Point]]) -> None:
    ours, known = points[_OURS][0], points[CLAIRVOYANT][0]
    table = Table("controller", "within SLO", "replica-hours", "ours / theirs at equal SLO", "the best options there")
    for name, found in points.items():
        if name in (_OURS, CLAIRVOYANT):
            table.add_row(
                name, f"{found[0].slo:.2%}", f"{found[0].hours:,.0f}", f"{ours.hours / found[0].hours:.3f}", ""
            )
            continue
        hours = hours_at(found, ours.slo)
        nearest = next((point for point in best(found) if point.slo >= ours.slo), best(found)[-1])
        ratio = "never as good" if hours is None else f"{ours.hours / hours:.3f}"
        table.add_row(name, f"{nearest.slo:.2%}", f"{nearest.hours:,.0f}", ratio, nearest.label)
    console.print(table)
    console.print(f"Over the clairvoyant: {ours.hours / known.hours:.3f}x")


if __name__ == "__main__":
    sys.exit(main())
