"""`llmproxy version`."""

import platform

from llmproxy import __version__


def version() -> None:
    """Print the version."""
    print(f"llmproxy {__version__} (Python {platform.python_version()})")
