"""`llmproxy plan`."""

from collections.abc import Callable
from typing import Annotated

import typer


def plan(
    peak: Annotated[str, typer.Option(help="Peak traffic: 300/min, 5/s or 18000/h.", show_default=False)],
    per_replica: Annotated[
        str, typer.Option(help="What one replica sustains within your SLO: 50/min.", show_default=False)
    ],
    headroom: Annotated[str, typer.Option(help="More than the peak, for chance and failures.")] = "30%",
) -> None:
    """How many replicas a peak needs: peak / sustainable x (1 + headroom), rounded up.

    For the real answer from your own traffic: llmproxy simulate --scale.
    """
    from llmproxy.policy.scaling.quantities import share
    from llmproxy.policy.scaling.sizing import parse_rate, replicas_for

    try:
        rates = [_option("--peak", parse_rate, peak), _option("--per-replica", parse_rate, per_replica)]
        replicas = replicas_for(rates[0], rates[1], _option("--headroom", share, headroom))
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{replicas} replica{'' if replicas == 1 else 's'}: {peak} / {per_replica} with {headroom} headroom")
    left = rates[1] * (replicas - 1) / rates[0]
    if replicas > 1:
        typer.echo(f"with one of them lost: {left:.0%} of the peak")
    typer.echo(f"utilisation at the peak: {rates[0] / (rates[1] * replicas):.0%}")


def _option(name: str, parse: Callable[[object], float], text: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
