"""`llmproxy check`."""

from pathlib import Path
from typing import Annotated

import typer


def check(
    config: Annotated[Path, typer.Argument(help="The configuration file.", metavar="CONFIG")],
    live: Annotated[bool, typer.Option("--live", help="Also ask every backend for its health and its models.")] = False,
) -> None:
    """Validate a configuration and show what it means.

    Exits with 1 and one line for each error (file:line: path: message) when it cannot be used; with --live, also
    when any backend's health path does not answer 200.
    """
    from llmproxy.cli.check_report import Report
    from llmproxy.config import ConfigError, load
    from llmproxy.policies import check_policy

    report = Report()
    try:
        settings = load(config, check_policy=check_policy, on_warning=report.warn)
    except ConfigError as error:
        report.errors(error)
        raise typer.Exit(1) from None
    report.show(str(config), settings)
    if live and not report.ask_all(settings):
        raise typer.Exit(1)
