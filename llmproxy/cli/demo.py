"""`llmproxy demo`."""

from typing import Annotated

import typer


def demo(
    port: Annotated[int, typer.Option(help="Port of the endpoint; 0 picks a free one.")] = 8080,
    admin_port: Annotated[int, typer.Option(help="Port of metrics, health and the admin API.")] = 8081,
    backends: Annotated[int, typer.Option(min=1, max=16, help="How many emulated vLLM servers.")] = 2,
) -> None:
    """Run the proxy over emulated vLLM servers: nothing to install, no GPU, no configuration."""
    from llmproxy.process import serve_demo

    raise typer.Exit(serve_demo(port, admin_port, backends))
