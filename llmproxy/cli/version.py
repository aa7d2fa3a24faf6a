"""`llmproxy version`."""

import platform

from llmproxy import __version__


def version() -> None:
    """Print the version, and whether the hot path is compiled."""
    from llmproxy.wire import relay

    compiled = "interpreted" if relay.__file__.endswith(".py") else "compiled"
    print(f"llmproxy {__version__} ({compiled}, Python {platform.python_version()})")
