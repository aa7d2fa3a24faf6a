"""What `llmproxy simulate` writes: tables on standard output, progress and warnings on standard error, and files."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llmproxy import __version__
from llmproxy.cli.simulate_plan import Plan, Unusable
from llmproxy.cli.simulate_tables import conditions, tables
from llmproxy.sim.experiment import Replay
from llmproxy.sim.report.page import page
from llmproxy.sim.score import FIGURES

_WIDTH_WHEN_PIPED = 160


class Report:
    """Writes as it goes."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        if not self._out.is_terminal:
            self._out = Console(highlight=False, width=_WIDTH_WHEN_PIPED)
        self._progress = Console(stderr=True)

    def error(self, message: str) -> None:
        """Why there is no result."""
        typer.echo(f"error: {message}", err=True)

    def begin(self, plan: Plan) -> None:
        """What will be run, and what of the trace will not."""
        trace = plan.trace
        if trace.bad:
            typer.echo(f"warning: {trace.bad} unreadable lines in {trace.name}, the first: {trace.first_bad}", err=True)
        for reason, count in trace.left_out.items():
            typer.echo(f"warning: {count} requests of {trace.name} are not replayed: {reason}", err=True)
        if plan.unfit:
            kv = plan.experiment.profile.kv_tokens
            typer.echo(
                f"warning: {plan.unfit} requests of {trace.name} are not replayed: longer than the {kv:,} tokens"
                " of a KV cache",
                err=True,
            )
        for name, value in conditions(plan):
            self._out.print(f"{name + ':':11}{value}", markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, plan: Plan) -> Iterator[Callable[[int], None]]:
        """A bar over all requests of all cases; gives what to call with how many more have come."""
        columns = TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        bar = Progress(*columns, console=self._progress, transient=True, disable=not self._progress.is_terminal)
        with bar:
            task = bar.add_task("", total=len(plan.cases) * len(plan.experiment.trace))
            yield lambda come: bar.advance(task, come)

    def show(self, plan: Plan, replays: Sequence[Replay]) -> None:
        """The figures as tables, one for each load."""
        for table in tables(plan, replays):
            self._out.print(table)

    def write_json(self, path: Path, replays: Sequence[Replay]) -> None:
        """One object a line for each policy, load and seed."""
        _write(path, "".join(f"{json.dumps(_figures(one))}\n" for one in replays))

    def write_page(self, path: Path, plan: Plan, replays: Sequence[Replay]) -> None:
        """The page with the plots."""
        facts = [*conditions(plan), ("Version", f"llmproxy {__version__}")]
        _write(path, page(facts, replays, [backend.id for backend in plan.experiment.backends]))
        self._out.print(f"The plots are in {path}.", markup=False, soft_wrap=True)


def _figures(replay: Replay) -> dict[str, object]:
    case = replay.case
    figures = {name: getattr(replay.score, name) for name in FIGURES}
    return {"policy": case.policy.name, "load": case.load, "seed": case.seed, **figures}


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{path}: cannot be written: {error.strerror}") from None
