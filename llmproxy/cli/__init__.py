"""The `llmproxy` command: one subcommand a file, no logic here."""

import typer

from llmproxy.cli.calibrate import calibrate
from llmproxy.cli.check import check
from llmproxy.cli.demo import demo
from llmproxy.cli.emulate import emulate
from llmproxy.cli.gpu_agent import gpu_agent
from llmproxy.cli.keys import keys
from llmproxy.cli.plan import plan
from llmproxy.cli.schema import schema
from llmproxy.cli.serve import serve
from llmproxy.cli.simulate import simulate
from llmproxy.cli.version import version

app = typer.Typer(
    name="llmproxy",
    help="One OpenAI-compatible endpoint in front of a fleet of vLLM servers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _command in (serve, check, demo, emulate, simulate, calibrate, plan, gpu_agent, schema, version):
    app.command()(_command)
app.add_typer(keys, name="keys")


def main() -> None:
    """Entry point of the console script."""
    app()
