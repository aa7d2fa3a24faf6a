"""End-to-end tests: the product on real sockets, over emulated backends and their faults."""

from tests.harness.fixtures import pytest_asyncio_loop_factories, stage

__all__ = ["pytest_asyncio_loop_factories", "stage"]
