"""What `llmproxy simulate` prints: the conditions, and the figures as tables. Names are `Text`, never markup."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from llmproxy.cli.simulate_plan import Plan
from llmproxy.config.units import format_duration
from llmproxy.policy.admission.deadline import Slo
from llmproxy.policy.admission.options import AdmissionOptions
from llmproxy.sim.backends import SimulatedBackend
from llmproxy.sim.experiment import Replay
from llmproxy.sim.report.words import COLUMNS, shown
from llmproxy.sim.summary import summaries


def conditions(plan: Plan) -> list[tuple[str, str]]:
    """What the figures hold for, as names and values."""
    experiment, trace = plan.experiment, plan.trace
    requests = f"{len(experiment.trace):,} requests"
    if trace.more:
        requests = f"the first {requests}"
    span = experiment.trace[-1].at_s - experiment.trace[0].at_s
    jitter = f", arrivals spread by up to {format_duration(experiment.jitter_s)}" if experiment.jitter_s else ""
    profile = experiment.profile
    return [
        ("Trace", f"{trace.name} ({trace.format}): {requests} in {span:,.0f} s{jitter}"),
        (
            "Profile",
            f"{profile.name}: {profile.kv_blocks:,} blocks of {profile.block_size} tokens,"
            f" {profile.max_batched_tokens:,} tokens a step, {profile.max_num_seqs} sequences",
        ),
        ("Backends", _backends(experiment.backends)),
        ("SLO", plan.slo),
        ("Admission", _admission(experiment.admission)),
        ("Seeds", str(plan.seeds)),
    ]


def tables(plan: Plan, replays: Sequence[Replay]) -> Iterator[Table]:
    """The means over the seeds, one table for each load."""
    found = sorted(summaries(replays), key=lambda one: plan.loads.index(one.load))
    for load, group in groupby(found, key=lambda one: one.load):
        table = Table(title=f"Load {load:g}", title_justify="left", title_style="bold")
        if plan.seeds > 1:
            table.caption = f"mean and standard deviation over {plan.seeds} seeds"
            table.caption_justify = "left"
        table.add_column("policy", overflow="fold")
        for column in COLUMNS:
            table.add_column(column.title, justify="right")
        for one in group:
            table.add_row(Text(one.policy), *(Text(shown(one.of(column.figure), column)) for column in COLUMNS))
        yield table


def _admission(options: AdmissionOptions | None) -> str:
    if options is None:
        return "off: everything is sent at once"
    held = [
        f"while prompts for {format_duration(options.backlog_s)} wait there" * bool(options.backlog_s),
        "by objectives" * (options.slo != Slo()),
        "by lanes" * bool(options.lanes),
    ]
    return f"requests are held {', '.join(filter(None, held)) or 'where there is a max_concurrency'}"


def _backends(backends: Sequence[SimulatedBackend]) -> str:
    kinds: dict[tuple[float, float, int | None], int] = {}
    for one in backends:
        kind = one.speed, one.weight, one.max_concurrency
        kinds[kind] = kinds.get(kind, 0) + 1
    words = []
    for (speed, weight, limit), count in kinds.items():
        bound = "" if limit is None else f", at most {limit} at a time"
        words.append(f"{count} of speed {speed:g} (weight {weight:g}{bound})")
    return " + ".join(words)
