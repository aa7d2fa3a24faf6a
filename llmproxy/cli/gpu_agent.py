"""`llmproxy gpu-agent`."""

from typing import Annotated

import typer


def gpu_agent(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 picks a free one.")] = 9401,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
) -> None:
    """Show the GPUs of this host to proxies on other hosts (JSON at /gpus) and to Prometheus (/metrics).

    A backend names it as gpu: {agent: "http://this-host:9401", device: 0}.
    """
    from llmproxy.control.signals.gpu_agent import serve_gpus

    raise typer.Exit(serve_gpus(host, port))
