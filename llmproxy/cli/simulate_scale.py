"""`llmproxy simulate --scale`."""

import json as json_format
from collections.abc import Sequence
from pathlib import Path
from random import Random

import typer
from rich.console import Console
from rich.table import Table

from llmproxy.config.units import parse_duration
from llmproxy.sim.scaling.fleet import Model
from llmproxy.sim.scaling.race import CLAIRVOYANT, CONTROLLERS, MEAN_REPLICAS, Result, run
from llmproxy.sim.scaling.traffic import Rates, arrivals, read_rates
from llmproxy.sim.traces import TraceError

_COLD_START_MAX_S = 86400
_WIDTH_WHEN_PIPED = 120


class _Unusable(Exception):
    """What the user asked for cannot be done; the message says why."""


def simulate_scale(path: Path | None, cold_start: str, controllers: Sequence[str], json: Path | None) -> None:
    """Every controller at the same traffic: a table, and a JSON object a line for each."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=_WIDTH_WHEN_PIPED)
    try:
        if path is None:
            raise _Unusable("nothing to replay: name a file with --rates")
        names, model = _names(controllers), Model(cold_start_s=_cold_start_s(cold_start))
        if json is not None and (json.is_dir() or not json.absolute().parent.is_dir()):
            raise _Unusable(f"{json}: there is no folder to write it to, or it is a folder itself")
        rates = read_rates(path)
        traffic = arrivals(rates, MEAN_REPLICAS * model.begins_per_s, Random(0))  # noqa: S311
        _begin(out, rates, model, len(traffic))
        with Console(stderr=True).status("replaying"):
            # Asked for or not: the others are measured by it.
            best = run(CLAIRVOYANT, CONTROLLERS[CLAIRVOYANT](model, traffic), model, traffic)
            results = [
                best if name == CLAIRVOYANT else run(name, CONTROLLERS[name](model, traffic), model, traffic)
                for name in names
            ]
        out.print(_table(results, best))
        if json is not None:
            lines = "".join(f"{json_format.dumps(_figures(result, best))}\n" for result in results)
            json.write_text(lines, encoding="utf-8")
    except (_Unusable, TraceError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"error: {json}: cannot be written: {error.strerror}", err=True)
        raise typer.Exit(1) from None


def _names(typed: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for part in typed for name in part.split(",") if name.strip()))
    unknown = [name for name in names if name not in CONTROLLERS]
    if unknown:
        raise _Unusable(f"--controller: there is no {unknown[0]!r} (known: {', '.join(CONTROLLERS)})")
    return names or list(CONTROLLERS)


def _cold_start_s(text: str) -> int:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise _Unusable(f"--cold-start: {error}") from None
    if not 0 <= seconds <= _COLD_START_MAX_S:
        raise _Unusable(f"--cold-start: {text} is longer than a day")
    return round(seconds)


def _begin(out: Console, rates: Rates, model: Model, ticks: int) -> None:
    if rates.bad:
        typer.echo(f"warning: {rates.bad} unreadable lines in {rates.name}, the first: {rates.first_bad}", err=True)
    facts = (
        ("Rates", f"{rates.name}, {ticks / 3600:,.1f} h, scaled to {MEAN_REPLICAS:g} replicas' worth in the mean"),
        (
            "Replica",
            f"{model.begins_per_s:g} requests/s of {model.lasts_s} s each, serves {model.cold_start_s} s after it is"
            f" asked for, at most {model.replicas_max}",
        ),
        ("SLO", f"a request waits at most {model.wait_max_s} s"),
    )
    for name, value in facts:
        out.print(f"{name + ':':10}{value}", markup=False, soft_wrap=True)


def _table(results: Sequence[Result], best: Result) -> Table:
    table = Table()
    table.add_column("controller")
    for head in ("within SLO", "replica-hours", "over clairvoyant", "scale events"):
        table.add_column(head, justify="right")
    for result in results:
        table.add_row(
            result.controller,
            f"{result.slo_attained:.2%}",
            f"{result.replica_hours:,.1f}",
            f"{result.replica_hours / best.replica_hours:.3f}x",
            f"{result.scale_events:,}",
        )
    return table


def _figures(result: Result, best: Result) -> dict[str, object]:
    return {
        "controller": result.controller,
        "slo_attained": round(result.slo_attained, 6),
        "replica_hours": round(result.replica_hours, 3),
        "hours_over_clairvoyant": round(result.replica_hours / best.replica_hours, 4),
        "scale_events": result.scale_events,
    }
