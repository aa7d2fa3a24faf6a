"""What `llmproxy check` prints: tables on standard output, errors and warnings on standard error."""

import asyncio
import random
import time

import typer
from rich.console import Console

from llmproxy.cli.check_tables import live_table, tables
from llmproxy.config import Config, ConfigError, Problem
from llmproxy.control.live_check import look_at_all, unserved

_WIDTH_WHEN_PIPED = 160


class Report:
    """Writes as it goes."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        if not self._out.is_terminal:
            self._out = Console(highlight=False, width=_WIDTH_WHEN_PIPED)

    def warn(self, problem: Problem) -> None:
        """Something valid, but rarely meant."""
        typer.echo(f"warning: {problem}", err=True)

    def errors(self, error: ConfigError) -> None:
        """Why the file cannot be used."""
        typer.echo(str(error), err=True)

    def show(self, name: str, config: Config) -> None:
        """The configuration as tables."""
        for table in tables(config):
            self._out.print(table)
        backends = sum(len(pool.backends) for pool in config.pools.values())
        counts = (len(config.pools), "pool"), (backends, "backend"), (len(config.models), "model")
        summary = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
        self._out.print(f"{name} is valid: {summary}.", markup=False, soft_wrap=True)

    def ask_all(self, config: Config) -> bool:
        """Ask every backend; True when all are well."""
        seen = asyncio.run(look_at_all(config, clock=time.monotonic, rng=random.Random()))  # noqa: S311 (jitter)
        self._out.print(live_table(seen))
        for model, upstream in unserved(config, seen):
            typer.echo(f"warning: models.{model}: no backend of its pool lists {upstream!r}", err=True)
        sick = [one for one in seen if not one.is_well]
        for one in sick:
            typer.echo(f"error: pools.{one.pool}: {one.spec.id} ({one.spec.url}): {one.reason}", err=True)
        return not sick
