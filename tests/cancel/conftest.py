"""Cancellation tests: a client leaves at every await there is."""

from tests.harness.fixtures import pytest_asyncio_loop_factories, stage

__all__ = ["pytest_asyncio_loop_factories", "stage"]
