"""Tests that read a real NVIDIA GPU: `make test-gpu`. Without `-m gpu` nothing here is even collected."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.name.startswith("test_") and config.option.markexpr != "gpu":
        return True
    return None
