"""What the conftests of end-to-end tests share: real sockets, on the event loop that the product runs on."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.harness.stage import Stage


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Emulated backends, proxies and clients; at the end of each test no proxy may hold anything any more."""
    stage = Stage(tmp_path)
    try:
        yield stage
    finally:
        await stage.ended()
