"""Options of a command that does two things, where some belong to one of them only."""

from collections.abc import Collection, Iterator

import typer


def given(context: typer.Context, names: Collection[str]) -> Iterator[str]:
    """Those of the parameters `names` that stand on the command line, as they are written there."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        # By its name, as the enumeration is click's own and its home has moved between versions.
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            yield parameter.opts[0]
