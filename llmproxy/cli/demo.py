"""`llmproxy demo`."""

from typing import Annotated

import typer


def demo(
    port: Annotated[int, typer.Option(help="Port of the endpoint; 0 picks a free one.")] = 8080,
    admin_port: Annotated[int, typer.Option(help="Port of metrics, health and the admin API.")] = 8081,
    backends: Annotated[int, typer.Option(min=1, max=16, help="How many emulated vLLM servers.")] = 2,
    autoscale: Annotated[
        bool, typer.Option("--autoscale", help="Let the proxy start and stop them itself: from none to --backends.")
    ] = False,
) -> None:
    """Run the proxy over emulated vLLM servers: nothing to install, no GPU, no configuration."""
    from llmproxy.demo import serve_demo

    raise typer.Exit(serve_demo(port, admin_port, backends, autoscale=autoscale))
