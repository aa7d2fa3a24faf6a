"""`llmproxy simulate`."""

from pathlib import Path
from typing import Annotated

import typer

from llmproxy.cli.options import given

_OF_SCALING = ("rates", "cold_start", "controller")
_OF_BOTH = ("trace", "json", "scale")


def simulate(
    context: typer.Context,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            "-t",
            help="What to replay: CSV, Mooncake, Azure, BurstGPT or our access log.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration: policy, limits, backends.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Which pool, where there are several.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", help="Policies, comma-separated: names, or package.module:Class."),
    ] = None,
    backends: Annotated[
        str | None, typer.Option("--backends", "-b", help="COUNT or COUNT@SPEED, such as 8 or 2@2.2,6@1.0.")
    ] = None,
    load: Annotated[str, typer.Option(help="Factors on the trace's rate, comma-separated.")] = "1.0",
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Replays of each case, seeded from 0 on.")] = 4,
    limit: Annotated[int, typer.Option(min=0, help="Replay the first so many requests; 0 is all.")] = 7000,
    jitter: Annotated[
        str, typer.Option(help="Spread arrivals by up to this; auto is the tick of a trace's coarse clock.")
    ] = "auto",
    slo: Annotated[str, typer.Option(help="Limits that goodput keeps.")] = "ttft=2s,ttft_scaled=1.5,tpot=100ms",
    admission: Annotated[
        str | None,
        typer.Option(
            help="on: requests are held, ordered and shed as a pool does, to keep --slo; off: all are sent at once.",
            show_default="on with --config",
        ),
    ] = None,
    profile: Annotated[Path | None, typer.Option(help="YAML file with the engine's size and speed.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write one JSON object a line per policy, load and seed.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots (HTML).")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.", show_default="one a core")] = 0,
    scale: Annotated[bool, typer.Option("--scale", help="Compare autoscaling instead of routing.")] = False,
    rates: Annotated[
        Path | None,
        typer.Option(help="With --scale: CSV with window_start_s,req_per_s, or a request trace.", show_default=False),
    ] = None,
    cold_start: Annotated[str, typer.Option(help="With --scale: from asking for a replica to serving.")] = "120s",
    controller: Annotated[
        list[str] | None,
        typer.Option(
            help="With --scale: comma-separated, of demand, hpa, kpa, keda, clairvoyant.", show_default="all of them"
        ),
    ] = None,
) -> None:
    """Replay a trace through the routing policies themselves, in virtual time, and compare what they would do.

    Without --backends there are as many as the pool has, or 8. Without --policy it is the pool's. With --scale it is
    the autoscaling that is compared, on --rates, beside the rules of others.
    """
    of_routing = context.params.keys() - {*_OF_SCALING, *_OF_BOTH}
    if foreign := ", ".join(given(context, of_routing if scale else _OF_SCALING)):
        what = "for comparing routing: leave out --scale" if scale else "for autoscaling: add --scale"
        typer.echo(f"error: {foreign}: {what}", err=True)
        raise typer.Exit(2)
    if scale:
        from llmproxy.cli.simulate_scale import simulate_scale

        return simulate_scale(rates or trace, cold_start, tuple(controller or ()), json)
    if trace is None:
        typer.echo("error: nothing to replay: name a file with --trace", err=True)
        raise typer.Exit(2)
    from llmproxy.cli.simulate_plan import Choices, Unusable, plan
    from llmproxy.cli.simulate_report import Report
    from llmproxy.cli.simulate_runs import RunFailed, run_all

    choices = Choices(
        trace=trace,
        config=config,
        pool=pool,
        policies=tuple(policy or ()),
        backends=backends,
        loads=load,
        seeds=seeds,
        limit=limit,
        jitter=jitter,
        slo=slo,
        admission=admission,
        profile=profile,
        outputs=tuple(path for path in (json, report) if path is not None),
    )
    out = Report()
    try:
        found = plan(choices)
        out.begin(found)
        with out.progress(found) as advance:
            replays = run_all(found.experiment, found.cases, workers, advance)
        out.show(found, replays)
        if json is not None:
            out.write_json(json, replays)
        if report is not None:
            out.write_page(report, found, replays)
    except (Unusable, RunFailed) as error:
        out.error(str(error))
        raise typer.Exit(1) from None
    return None
