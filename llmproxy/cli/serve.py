"""`llmproxy serve`."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", show_default=False)],
) -> None:
    """Run the proxy.

    SIGHUP, saving the file, or POST /admin/reload on the admin port loads it again; SIGTERM drains and ends.
    """
    # Imported here, so that `--help` and `version` do not wait for the data plane.
    from llmproxy.process import serve_file

    raise typer.Exit(serve_file(config))
