"""Who comes while the proxy starts waits for the backends' first probes, not long, and is served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from llmproxy import app as composition
from llmproxy.app import App
from llmproxy.control.prober import Prober
from tests.harness.client import Client
from tests.harness.proxy import config_of, settings
from tests.harness.stage import CHAT, Stage, chat
from tests.harness.waiting import until

WHOLE = chat(stream=False, max_tokens=1)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Until this is set, no probe comes back."""
    event = asyncio.Event()
    probe = Prober._probe

    async def held(*args):
        await event.wait()
        await probe(*args)

    monkeypatch.setattr(Prober, "_probe", held)
    return event


def app_over(stage: Stage, backend, tmp_path, port: int = 0) -> App:
    pools = {"main": {"backends": [{"id": "b1", "url": backend.url}]}}
    return App(config_of(settings(pools, tmp_path / "log", server={"port": port})), seed=7, clock=stage.clock)


@contextlib.asynccontextmanager
async def coming(app: App, looked: asyncio.Event) -> AsyncIterator[tuple[asyncio.Task, Client]]:
    """A client that asks as soon as the port is open, while `app` starts."""
    starting = asyncio.create_task(app.start())
    try:
        await until(lambda: hasattr(app, "listener") and app.listener.port, "the port")
        client = await Client.open(app.listener.port)
        await client.send("POST", CHAT, WHOLE)
        yield starting, client
        client.leave()
    finally:
        looked.set()
        await starting
        await app.stop(0.0)


async def test_nobody_is_sent_away_because_no_backend_was_looked_at_yet(
    stage: Stage, looked: asyncio.Event, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(composition, "FIRST_LOOKS_S", 60.0)
    async with coming(app_over(stage, await stage.backend(), tmp_path), looked) as (starting, client):
        assert not starting.done()
        looked.set()
        await starting
        assert (await client.answer()).status == 200


async def test_a_backend_that_does_not_answer_holds_nobody_up_for_long(
    stage: Stage, looked: asyncio.Event, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(composition, "FIRST_LOOKS_S", 0.05)
    async with coming(app_over(stage, await stage.backend(), tmp_path), looked) as (starting, client):
        await starting
        assert (await client.answer()).status == 503


async def test_two_that_start_at_once_do_not_share_a_port(
    stage: Stage, looked: asyncio.Event, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(composition, "FIRST_LOOKS_S", 60.0)
    backend = await stage.backend()
    app = app_over(stage, backend, tmp_path)
    async with coming(app, looked):
        with pytest.raises(OSError, match="in use"):
            await app_over(stage, backend, tmp_path, port=app.listener.port).start()


async def test_who_leaves_is_not_waited_for(
    stage: Stage, looked: asyncio.Event, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(composition, "FIRST_LOOKS_S", 60.0)
    app = app_over(stage, await stage.backend(), tmp_path)
    async with coming(app, looked) as (starting, client):
        assert not starting.done()
        app.pools["main"].set_members((), stage.clock())
        app._probers["main"].sync()
        await starting
        assert (await client.answer()).status == 503
