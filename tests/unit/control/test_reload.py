import asyncio
import os
import signal
import threading

import pytest

from llmproxy.config.model import Config
from llmproxy.config.problem import ConfigError, Problem
from llmproxy.control.file_watch import FileWatch
from llmproxy.control.reload import Reloader, Trigger


def config(port=8000, **sections):
    return Config.model_validate({"pools": {"p": {"backends": [f"http://10.0.0.1:{port}"]}}, **sections})


class Source:
    """What `load` gives and what `apply` got. Set `outcome` to a Config or an exception."""

    def __init__(self):
        self.first = self.outcome = config()
        self.loads = 0
        self.applied = []

    def load(self):
        self.loads += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def reloader(self, **options):
        return Reloader(load=self.load, apply=self.applied.append, current=self.first, **options)


@pytest.fixture
def source():
    return Source()


async def test_a_good_file_is_applied(source):
    reloader = source.reloader()
    source.outcome = config(port=9000)
    result = await reloader.reload(Trigger.ADMIN)
    assert (result.ok, result.changed, result.problems, result.needs_restart) == (True, True, (), ())
    assert source.applied == [source.outcome]
    assert reloader.current is source.outcome
    assert (await reloader.reload(Trigger.ADMIN)).changed is False
    assert reloader.counts == {"ok": 2}


async def test_a_bad_file_keeps_the_old_one_and_says_why(source, caplog):
    reloader = source.reloader()
    source.outcome = ConfigError(
        [Problem("c.yaml", 3, "pools.p.weight", "unknown key"), Problem("c.yaml", 9, "models", "no pool q")]
    )
    result = await reloader.reload(Trigger.FILE)
    assert result.problems == ("c.yaml:3: pools.p.weight: unknown key", "c.yaml:9: models: no pool q")
    assert not result.ok
    assert source.applied == []
    assert reloader.current is source.first
    assert reloader.counts == {"failed": 1}
    assert "models: no pool q" in caplog.text


async def test_a_failing_apply_is_a_problem_too(source, caplog):
    async def apply(new):
        raise RuntimeError("no such policy")

    reloader = Reloader(load=source.load, apply=apply, current=source.first)
    source.outcome = config(port=9000)
    assert (await reloader.reload(Trigger.ADMIN)).problems == ("RuntimeError: no such policy",)
    assert reloader.current is source.first
    assert "Traceback" in caplog.text


async def test_apply_may_wait(source):
    applied = []

    async def apply(new):
        await asyncio.sleep(0)
        applied.append(new)

    await Reloader(load=source.load, apply=apply, current=source.first).reload(Trigger.ADMIN)
    assert applied == [source.first]


async def test_settings_that_need_a_restart_are_named_until_then(source):
    reloader = source.reloader()
    source.outcome = config(server={"port": 9999}, admin={"port": 7777})
    for _ in range(2):
        assert (await reloader.reload(Trigger.ADMIN)).needs_restart == ("server.port", "admin.port")
    source.outcome = config(server={"drain_timeout": "1s"})
    assert (await reloader.reload(Trigger.ADMIN)).needs_restart == ()


async def test_of_tls_only_switching_it_on_or_off_needs_a_restart(source):
    def tls(name):
        return config(server={"tls": {"cert": f"{name}.crt", "key": f"{name}.key"}})

    reloader = Reloader(load=source.load, apply=source.applied.append, current=tls("old"))
    source.outcome = tls("new")
    assert (await reloader.reload(Trigger.ADMIN)).needs_restart == ()
    source.outcome = config()
    assert (await reloader.reload(Trigger.ADMIN)).needs_restart == ("server.tls",)
    reloader = source.reloader()
    source.outcome = tls("new")
    assert (await reloader.reload(Trigger.ADMIN)).needs_restart == ("server.tls",)


async def test_one_at_a_time(source):
    running, most = 0, 0

    async def apply(new):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    reloader = Reloader(load=source.load, apply=apply, current=source.first)
    await asyncio.gather(*(reloader.reload(Trigger.ADMIN) for _ in range(5)))
    assert (most, source.loads) == (1, 5)


async def test_loading_does_not_hold_up_the_event_loop(source):
    loader_runs, loop_runs = threading.Event(), threading.Event()

    def load():
        loader_runs.set()
        assert loop_runs.wait(10)
        return source.first

    reloading = asyncio.create_task(
        Reloader(load=load, apply=source.applied.append, current=source.first).reload(Trigger.ADMIN)
    )
    while not loader_runs.is_set():
        await asyncio.sleep(0)
    loop_runs.set()
    assert (await reloading).ok


async def test_sighup_reloads_and_a_burst_is_not_lost(source, eventually):
    seen = []
    reloader = source.reloader(on_result=seen.append)
    reloader.start()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: seen, "the reload")
        source.outcome = config(port=9000)
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: reloader.current is source.outcome, "the new configuration")
    finally:
        await reloader.stop()
    assert source.loads < 20


async def test_a_signal_during_a_reload_means_another_one(source, eventually):
    applying, go_on = asyncio.Event(), asyncio.Event()

    async def apply(new):
        applying.set()
        await go_on.wait()

    reloader = Reloader(load=source.load, apply=apply, current=source.first)
    reloader.start()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        await applying.wait()
        source.outcome = config(port=9000)
        heard = asyncio.Event()
        os.kill(os.getpid(), signal.SIGHUP)
        asyncio.get_running_loop().call_later(0, heard.set)
        await heard.wait()
        go_on.set()
        await eventually(lambda: reloader.current is source.outcome, "the second reload")
    finally:
        await reloader.stop()


async def test_a_changed_file_reloads_and_a_bad_listener_does_not_end_the_watch(source, tmp_path, naps, eventually):
    def explode(result):
        raise RuntimeError("no")

    path = tmp_path / "c.yaml"
    path.write_text("one")
    reloader = source.reloader(watch=FileWatch([path]), sleep=naps, on_result=explode)
    reloader.start(sighup=False)
    try:
        for text, port in (("two", 9000), ("three", 9001)):
            path.write_text(text)
            source.outcome = config(port=port)
            for _ in range(2):
                await eventually(lambda: naps.sleeping)
                naps.wake()
            await eventually(lambda: reloader.current is source.outcome)
            await eventually(lambda: naps.sleeping)
    finally:
        await reloader.stop()
    assert source.loads == 2
