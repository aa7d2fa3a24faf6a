"""`llmproxy plan`."""

from pathlib import Path
from typing import Annotated

import typer

from llmproxy.cli.options import given

_OF_THE_PEAK = ("peak", "headroom")
_OF_A_POOL = ("pool", "traffic", "cold_start", "json")
_HEADROOM_BELOW = 10.0
"""Ten times the peak, and nobody means that."""


def plan(
    context: typer.Context,
    peak: Annotated[str | None, typer.Option(help="Peak traffic: 300/min, 5/s or 18000/h.", show_default=False)] = None,
    per_replica: Annotated[
        str | None, typer.Option(help="What one replica sustains within your SLO: 50/min.", show_default=False)
    ] = None,
    headroom: Annotated[str, typer.Option(help="More than the peak, for chance and failures.")] = "30%",
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Say what a pool of this configuration could change.", show_default=False),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="With --config: which pool, where several are scaled.")] = None,
    traffic: Annotated[
        Path | None,
        typer.Option(
            help="With --config: an access log, another request trace, or CSV with window_start_s,req_per_s.",
            show_default="the pool's scaling.history",
        ),
    ] = None,
    cold_start: Annotated[
        str | None,
        typer.Option(
            help="With --config: from starting a replica to its first token.", show_default="the pool's, or 120s"
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="With --config: write what was found here.")] = None,
) -> None:
    """How many replicas a peak needs: peak / sustainable x (1 + headroom), rounded up. With --config: what its scaling
    could change to need fewer replica-hours at the same service, found by replaying its own traffic.

    How it compares with other rules: llmproxy simulate --scale.
    """
    try:
        if foreign := ", ".join(given(context, _OF_A_POOL if config is None else _OF_THE_PEAK)):
            raise ValueError(f"{foreign}: for use {'with' if config is None else 'without'} --config")
        if config is not None:
            from llmproxy.cli.plan_pool import Wanted, plan_pool

            plan_pool(Wanted(config, pool, traffic, per_replica, cold_start, json))
        else:
            _plan_peak(peak, per_replica, headroom)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _plan_peak(peak: str | None, per_replica: str | None, headroom: str) -> None:
    from llmproxy.cli.plan_pool import option
    from llmproxy.policy.scaling.quantities import share
    from llmproxy.policy.scaling.sizing import parse_rate, replicas_for

    if peak is None or per_replica is None:
        raise ValueError("give --peak and --per-replica, or a --config")
    rates = [option("--peak", parse_rate, peak), option("--per-replica", parse_rate, per_replica)]
    more = option("--headroom", share, headroom)
    if more >= _HEADROOM_BELOW:
        raise ValueError(f"--headroom: {headroom} is {more:.0%} more than the peak; write {more:g}% for {more / 100:g}")
    replicas = replicas_for(rates[0], rates[1], more)
    typer.echo(f"{replicas} replica{'' if replicas == 1 else 's'}: {peak} / {per_replica} with {headroom} headroom")
    left = rates[1] * (replicas - 1) / rates[0]
    if replicas > 1:
        typer.echo(f"with one of them lost: {left:.0%} of the peak")
    typer.echo(f"utilisation at the peak: {rates[0] / (rates[1] * replicas):.0%}")
