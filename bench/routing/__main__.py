"""`python -m bench.routing`: our routing beside other systems' rules, on real traffic (see bench/routing/README.md)."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.routing.experiments import EXPERIMENTS, GROUPS, ON_REQUEST, POLICIES
from bench.routing.overload import ADMISSION, OVERLOADS, OverloadTask, print_overload
from bench.routing.overload import run as run_overload
from bench.routing.replay import Row, Task, run
from bench.routing.report import print_experiment, print_loads, print_targets, save
from llmproxy.sim.trace import Arrival
from llmproxy.sim.traces import TraceError, read_trace

_TRACE = Path(__file__).resolve().parents[3] / "shared" / "traces" / "mooncake_conversation.csv.gz"
_QUICK_REQUESTS = 1500
_QUICK_SEEDS = 2
OVERLOAD = "overload"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _part(text: str) -> slice:
    begin, _, end = text.rpartition(":")
    return slice(int(begin or 0), int(end))


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("--trace", type=Path, default=_TRACE, help="default: Mooncake conversation in ../shared/traces")
    parser.add_argument(
        "--jitter", type=float, default=3.0, metavar="S", help="added to arrivals (default: 3, Mooncake's clock)"
    )
    parser.add_argument("--requests", type=_part, metavar="[FROM:]TO", help="part of the trace (default: 7000)")
    parser.add_argument("--seeds", type=int, metavar="N", help="default: 4")
    parser.add_argument("--quick", action="store_true", help="1,500 requests, 2 seeds: to see that all works")
    parser.add_argument("--only", type=_names, help="comma-separated: " + ", ".join([*EXPERIMENTS, *GROUPS, OVERLOAD]))
    parser.add_argument("--policies", type=_names, help="comma-separated: " + ", ".join(POLICIES))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="PATH", help="one line for each experiment, policy, load and seed")
    options = parser.parse_args(given)
    options.requests = options.requests or slice(_QUICK_REQUESTS if options.quick else 7000)
    options.seeds = options.seeds or (_QUICK_SEEDS if options.quick else 4)
    usual = [name for name in (*EXPERIMENTS, OVERLOAD) if name not in ON_REQUEST]
    options.only = [one for name in options.only or usual for one in GROUPS.get(name, (name,))]
    options.policies = options.policies or list(POLICIES)
    for chosen, known in ((options.only, (*EXPERIMENTS, OVERLOAD)), (options.policies, POLICIES)):
        unknown = [name for name in chosen if name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)} (known: {', '.join(known)})")
    return options


def tasks(experiments: Sequence[str], policies: Sequence[str], seeds: int) -> list[Task | OverloadTask]:
    """The long ones first, so that no process is left alone with one in the end."""
    names = [name for name in experiments if name != OVERLOAD]
    wanted = [Task(name, policy, seed) for name in names for policy in policies for seed in range(seeds)]
    wanted.sort(key=lambda task: len(EXPERIMENTS[task.experiment].loads) == 1)
    overload = range(seeds) if OVERLOAD in experiments else ()
    return [*(OverloadTask(tuple(policies), seed) for seed in overload), *wanted]


def _rows(
    arrivals: Sequence[Arrival], options: argparse.Namespace, wanted: Sequence[Task | OverloadTask]
) -> Iterator[list[Row]]:
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(run_overload, arrivals, options.jitter, task)
            if isinstance(task, OverloadTask)
            else pool.submit(run, arrivals, options.jitter, task)
            for task in wanted
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main(given: Sequence[str] | None = None) -> int:
    options = _arguments(given)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    try:
        arrivals = read_trace(options.trace, options.requests.stop).arrivals[options.requests]
    except (TraceError, OSError) as error:
        console.print(f"[red]cannot run:[/] {error}", highlight=False)
        return 2
    wanted = tasks(options.only, options.policies, options.seeds)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rows: list[Row] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{len(arrivals):,} requests x {options.seeds} seeds", total=len(wanted))
        for found in _rows(arrivals, options, wanted):
            rows += found
            progress.advance(bar)
    order = {name: place for place, name in enumerate([*EXPERIMENTS, *OVERLOADS, ADMISSION, *POLICIES])}
    rows.sort(key=lambda row: (order[row["experiment"]], order[row["policy"]], row["load"], row["seed"]))
    for name in dict.fromkeys(row["experiment"] for row in rows if row["experiment"] in EXPERIMENTS):
        (print_loads if len(EXPERIMENTS[name].loads) > 1 else print_experiment)(console, rows, name)
    print_overload(console, rows)
    print_targets(console, [row for row in rows if row["experiment"] in EXPERIMENTS])
    if options.json:
        save(rows, options.json)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
