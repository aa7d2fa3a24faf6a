"""`llmproxy calibrate`."""

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    backend: Annotated[
        list[str],
        typer.Option(
            "--backend",
            "-b",
            help="An engine's URL; repeat for engines alike that share a machine.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the profile there, not on the screen.")] = None,
    key: Annotated[str, typer.Option(help="The engine's API key.", envvar="LLMPROXY_ENGINE_KEY")] = "",
    model: Annotated[str | None, typer.Option(help="Which model, where the engine has several.")] = None,
    name: Annotated[str | None, typer.Option(help="The profile's name; default: the model's.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="As the engine was started.")] = None,
    max_batched_tokens: Annotated[int | None, typer.Option(min=1, help="As the engine was started.")] = None,
    longest: Annotated[str, typer.Option(help="No prompts that take longer than this to a first token.")] = "8s",
    seed: Annotated[int, typer.Option(help="Seeds the prompts' texts.")] = 0,
) -> None:
    """Measure an idle engine, and write the profile with which `llmproxy simulate --profile` makes one as fast.

    It is asked lone prompts of several lengths and batches of several sizes: some minutes on a slow engine, less than
    one on a fast one.
    """
    import asyncio

    from llmproxy.calibrate.engine import EngineError
    from llmproxy.calibrate.run import Wanted
    from llmproxy.calibrate.run import calibrate as run
    from llmproxy.cli.calibrate_report import comments
    from llmproxy.config.units import parse_duration

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    try:
        longest_s = parse_duration(longest)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--longest") from None
    wanted = Wanted(tuple(backend), key, model, name, max_num_seqs, max_batched_tokens, longest_s, seed)
    try:
        if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
            raise EngineError(f"{out}: there is no folder to write it to, or it is a folder itself")
        made = asyncio.run(run(wanted, tell))
        text = comments(made) + made.fit.profile.yaml()
        if out is not None:
            out.write_text(text, encoding="utf-8")
    except (EngineError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    tell(f"The profile misses what was measured by {made.fit.error:.1%} in the mean, by {made.fit.worst:.1%} at most.")
    for one in made.assumed:
        tell(f"assumed: {one}")
    if out is None:
        typer.echo(text, nl=False)
    else:
        tell(f"The profile is in {out}: llmproxy simulate --profile {out} --trace FILE")
