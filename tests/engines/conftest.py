"""Tests against two real vLLM servers on the CPU: `make test-engines`, or, once `make engines` has installed them,

    pytest tests/engines -m engines

Without `-m engines` nothing here is even collected. LLMPROXY_ENGINES_DIR names a directory other than .engines/, and
LLMPROXY_ENGINES_MODEL another of the models in it (SmolLM2-135M-Instruct: real answers, a tenth of the speed). The
last file uses that one in any case. It takes 8 minutes on two cores that have nothing else to do.

The servers are started once, and once again after each test that ends one; the files are in an order that makes few
restarts. The proxy in front is the whole product (`llmproxy.app.App`), a new one for each test, checked for leaks at
the end like in every other end-to-end test. What the servers say is in .engines/logs/.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.engines.vllm_server import REAL, TINY, Engines
from tests.harness.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
NEEDED_KB = 8_000_000


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.name.startswith("test_") and config.option.markexpr != "engines":
        return True
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """The two servers; not started yet."""
    directory = Path(os.environ.get("LLMPROXY_ENGINES_DIR", ROOT / ".engines"))
    model = os.environ.get("LLMPROXY_ENGINES_MODEL", TINY)
    needed = [directory / "venv/bin/vllm", *(directory / "models" / name / "config.json" for name in (model, REAL))]
    if missing := [str(path) for path in needed if not path.exists()]:
        pytest.exit(f"no real engines: {', '.join(missing)} not found; run `make engines` first", 1)
    if (free_kb := _available_kb()) < NEEDED_KB:
        pytest.exit(f"two real engines need 8 GB of free memory; there are {free_kb // 1000} MB", 1)
    # A terminated test run ends as one that was interrupted, so that it leaves no engines behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    engines = Engines(directory, model, ROOT / ".engines/logs")
    yield engines
    engines.destroy()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
async def up(engines: Engines) -> Engines:
    """Both servers, serving and idle."""
    await engines.up()
    return engines


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Proxies and clients; at the end of each test no proxy may hold anything any more."""
    stage = Stage(tmp_path)
    try:
        yield stage
    finally:
        await stage.ended()


def _available_kb() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
