"""The process actuator over real processes: their life, their traces, and what survives the proxy."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llmproxy.control.actuators import processes
from llmproxy.control.actuators.base import ActuatorError, TiersFailed
from llmproxy.control.actuators.engine_kinds import EngineKind, ProcessOptions
from llmproxy.control.actuators.process import MARK, ProcessActuator
from llmproxy.control.actuators.records import Records
from tests.harness.waiting import until

PYTHON = sys.executable
SLEEPER = f"{PYTHON} -c 'import time; print(\"up\", flush=True); time.sleep(60)' {{port}} {{id}}"
STUBBORN = (
    f"{PYTHON} -c 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    f'print("up", flush=True); time.sleep(60)\''
)
Make = Callable[..., ProcessActuator]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[ProcessActuator] = []

    def build(command: str = SLEEPER, **options: Any) -> ProcessActuator:
        defaults = {"command": command, "directory": tmp_path / "run", "stop_timeout_s": 5.0}
        actuator = ProcessActuator("main", ProcessOptions(**defaults | options))
        made.append(actuator)
        return actuator

    yield build
    for actuator in made:
        await actuator.stop()
    last = ProcessActuator("main", ProcessOptions("nothing", tmp_path / "run", stop_timeout_s=0.5, on_exit_stop=True))
    await last.start()
    await last.stop()


async def ids(actuator: ProcessActuator) -> list[str]:
    return [one.id for one in await actuator.replicas() if not one.stopping]


def pid_of(directory: Path, id: str) -> int:
    rows = json.loads((directory / "run" / "replicas.json").read_text())["replicas"]
    return next(int(row["pid"]) for row in rows if row["id"] == id)


def said(directory: Path, id: str) -> str:
    file = directory / "run" / "logs" / f"{id}.log"
    return file.read_text() if file.exists() else ""


async def test_scale_up_and_down_and_again(make: Make, tmp_path: Path) -> None:
    actuator = make()
    await actuator.scale(2)
    await actuator.scale(2)
    both = await actuator.replicas()
    assert len({one.url for one in both}) == 2
    pids = [pid_of(tmp_path, one.id) for one in both]
    assert all(os.getpgid(pid) == pid for pid in pids), "each in a group of its own"
    first, second = [one.id for one in both]
    await actuator.scale(1, leaving=[first])
    assert await ids(actuator) == [second]
    await until(lambda: processes.started_ticks(pids[0]) is None, "the end of the first")

    async def alone() -> bool:
        return len(await actuator.replicas()) == 1

    await until(alone, "the first forgotten")
    await actuator.scale(0)
    await until(lambda: processes.started_ticks(pids[1]) is None, "the end of the second")


async def test_one_that_leaves_is_replaced_when_the_number_stays(make: Make) -> None:
    actuator = make()
    await actuator.scale(2)
    first, second = await ids(actuator)
    await actuator.scale(2, leaving=[first, "unheard of"])
    after = await ids(actuator)
    assert second in after
    assert first not in after
    assert len(after) == 2


async def test_without_a_name_the_youngest_goes(make: Make) -> None:
    actuator = make()
    await actuator.scale(1)
    [oldest] = await ids(actuator)
    await actuator.scale(3)
    await actuator.scale(1)
    assert await ids(actuator) == [oldest]


async def test_one_that_ignores_sigterm_is_killed(make: Make, tmp_path: Path) -> None:
    actuator = make(STUBBORN, stop_timeout_s=0.2)
    await actuator.scale(1)
    [id] = await ids(actuator)
    pid = pid_of(tmp_path, id)
    await until(lambda: "up" in said(tmp_path, id), "a deaf process")
    await actuator.scale(0)
    await until(lambda: processes.started_ticks(pid) is None, "its end")


async def test_children_of_an_engine_go_with_it(make: Make, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    actuator = make(f"{PYTHON} {script}")
    await actuator.scale(1)
    [id] = await ids(actuator)
    await until(lambda: said(tmp_path, id).strip(), "a grandchild")
    grandchild = int(said(tmp_path, id))
    os.kill(pid_of(tmp_path, id), signal.SIGKILL)

    async def gone() -> bool:
        return await ids(actuator) == [] and processes.started_ticks(grandchild) is None

    await until(gone, "both gone")


async def test_one_that_ends_by_itself_is_not_listed_and_its_last_words_are_told(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    actuator = make(f"{PYTHON} -c 'import sys; print(\"CUDA out of memory\"); sys.exit(3)'")
    await actuator.scale(1)
    await until(lambda: processes.started_ticks(next(iter(actuator._engines.values())).record.pid) is None, "its end")
    assert len(await ids(actuator)) == 1, "named once, so that whoever asks sees that it failed"
    assert await ids(actuator) == []
    assert "status 3" in caplog.text
    assert "CUDA out of memory" in caplog.text


async def test_gpu_sets_are_given_once_each(make: Make, tmp_path: Path) -> None:
    show = f"{PYTHON} -c 'import os, time; print(os.environ[\"CUDA_VISIBLE_DEVICES\"], flush=True); time.sleep(60)'"
    actuator = make(show, gpus=("0", "1,2"))
    with pytest.raises(ActuatorError, match="all 2 sets of GPUs are in use"):
        await actuator.scale(3)
    both = await ids(actuator)
    assert len(both) == 2
    for id in both:
        await until(lambda id=id: said(tmp_path, id), "its GPUs")
    assert sorted(said(tmp_path, id).strip() for id in both) == ["0", "1,2"]


async def test_ports_come_from_the_range(make: Make) -> None:
    probe = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    taken = probe.sockets[0].getsockname()[1]
    actuator = make(ports=(taken, taken))
    with pytest.raises(ActuatorError, match="no port from"):
        await actuator.scale(1)
    probe.close()


async def test_a_command_that_is_not_there(make: Make) -> None:
    actuator = make("/nonexistent/vllm serve --port {port}")
    with pytest.raises(ActuatorError, match="No such file"):
        await actuator.scale(1)
    assert await actuator.replicas() == []


async def test_the_next_proxy_takes_them_over(make: Make, tmp_path: Path) -> None:
    first = make()
    await first.scale(2)
    before = await first.replicas()
    await first.stop()
    second = make()
    after = await second.replicas()
    assert {one.id: one.url for one in after} == {one.id: one.url for one in before}
    await second.scale(1, leaving=[before[0].id])
    assert await ids(second) == [before[1].id]


async def test_one_whose_number_was_never_written_is_found_by_its_mark(make: Make, tmp_path: Path) -> None:
    first = make()
    await first.scale(1)
    [id] = await ids(first)
    pid = pid_of(tmp_path, id)
    await first.stop()
    file = tmp_path / "run" / "replicas.json"
    content = json.loads(file.read_text())
    content["replicas"][0] |= {"pid": 0, "ticks": 0}
    file.write_text(json.dumps(content))
    second = make()
    assert await ids(second) == [id]
    await second.scale(0)
    await until(lambda: processes.started_ticks(pid) is None, "its end")


async def test_a_number_that_is_somebody_elses_by_now_is_left_alone(make: Make, tmp_path: Path) -> None:
    first = make()
    await first.scale(1)
    await first.stop()
    file = tmp_path / "run" / "replicas.json"
    content = json.loads(file.read_text())
    mine = content["replicas"][0]["pid"]
    content["replicas"][0] |= {"pid": os.getpid()}
    file.write_text(json.dumps(content))
    second = make()
    assert await second.replicas() == []
    os.killpg(mine, signal.SIGKILL)


async def test_a_file_that_says_nothing_one_can_trust(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "run" / "replicas.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    actuator = make()
    assert await ids(actuator) == [], "the machine went down while it was written, and took all engines with it"
    await actuator.stop()
    file.write_text('{"version": 1,')
    with pytest.raises(ActuatorError, match="remove it when no engine runs"):
        await make().start()
    file.unlink()


async def test_another_command_ends_those_of_the_old_one(make: Make, tmp_path: Path) -> None:
    first = make()
    await first.scale(1)
    [id] = await ids(first)
    pid = pid_of(tmp_path, id)
    await first.stop()
    second = make(SLEEPER + " --more")
    assert await ids(second) == []
    await until(lambda: processes.started_ticks(pid) is None, "its end")


async def test_two_proxies_do_not_share_a_folder(make: Make) -> None:
    first, second = make(), make()
    await first.scale(1)
    with pytest.raises(ActuatorError, match="another proxy uses it"):
        await second.scale(3)
    await first.stop()
    assert len(await second.replicas()) == 1


async def test_engines_end_with_the_proxy_where_that_is_wanted(make: Make, tmp_path: Path) -> None:
    actuator = make(on_exit_stop=True)
    await actuator.scale(2)
    pids = [pid_of(tmp_path, id) for id in await ids(actuator)]
    await actuator.stop()
    assert [processes.started_ticks(pid) for pid in pids] == [None, None]


async def test_logs_are_bounded(make: Make, tmp_path: Path) -> None:
    chatty = f"{PYTHON} -c 'import time\nwhile True: print(\"x\" * 999, flush=True); time.sleep(0.001)'"
    actuator = make(chatty, log_max_bytes=20_000)
    await actuator.scale(1)
    [id] = await ids(actuator)
    log = tmp_path / "run" / "logs" / f"{id}.log"
    await until(lambda: log.exists() and log.stat().st_size > 20_000, "a long log")
    await actuator.replicas()
    assert log.with_suffix(".log.1").stat().st_size == 20_000
    size = log.stat().st_size
    await until(lambda: log.stat().st_size > size, "it goes on")
    assert b"\0" not in log.read_bytes()


async def test_a_tier_that_cannot_be_started_does_not_keep_the_others(make: Make) -> None:
    kinds = {"none": EngineKind("no-such-program {port}"), "some": EngineKind(SLEEPER)}
    actuator = make(tiers=kinds)
    with pytest.raises(TiersFailed, match="no-such-program cannot be started") as failed:
        await actuator.scale(3, tiers={"none": 1, "some": 2})
    assert failed.value.tiers == ("none",)
    assert [one.tier for one in await actuator.replicas()] == ["some", "some"]


@pytest.fixture
def held_spawn(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Starting a process takes until this is set."""
    go, spawn = threading.Event(), ProcessActuator._spawn

    def slowly(self: ProcessActuator, record: Any, kind: Any) -> Any:
        assert go.wait(10.0)
        return spawn(self, record, kind)

    monkeypatch.setattr(ProcessActuator, "_spawn", slowly)
    return go


@pytest.mark.parametrize("on_exit_stop", [True, False])
async def test_one_that_is_being_started_when_the_call_is_given_up_is_known_all_the_same(
    make: Make, tmp_path: Path, held_spawn: threading.Event, on_exit_stop: bool
) -> None:
    actuator = make(on_exit_stop=on_exit_stop, stop_timeout_s=0.5)
    call = asyncio.create_task(actuator.scale(1))
    await until(lambda: actuator._engines, "a start that is under way")
    [record] = [engine.record for engine in actuator._engines.values()]
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    asyncio.get_running_loop().call_later(0.1, held_spawn.set)
    await actuator.stop()
    pid = await asyncio.to_thread(processes.marked, MARK, record.mark)
    if on_exit_stop:
        assert pid is None
    else:
        assert pid_of(tmp_path, record.id) == pid


async def test_one_that_is_not_wanted_before_it_is_started_is_ended(make: Make, held_spawn: threading.Event) -> None:
    actuator = make(stop_timeout_s=0.5)
    call = asyncio.create_task(actuator.scale(1))
    await until(lambda: actuator._engines, "a start that is under way")
    [record] = [engine.record for engine in actuator._engines.values()]
    call.cancel()
    await actuator.scale(0)
    held_spawn.set()
    await until(lambda: not actuator._engines, "its end")
    assert await asyncio.to_thread(processes.marked, MARK, record.mark) is None


def nothing_can_be_written(directory: Path) -> Path:
    """Stands for a full disk: the file that takes the place of the old one cannot be opened."""
    obstacle = directory / "run" / "replicas.new"
    obstacle.mkdir()
    return obstacle


async def test_they_end_with_the_proxy_though_nothing_can_be_written(make: Make, tmp_path: Path) -> None:
    actuator = make(on_exit_stop=True)
    await actuator.scale(3)
    pids = [pid_of(tmp_path, id) for id in await ids(actuator)]
    obstacle = nothing_can_be_written(tmp_path)
    await actuator.stop()
    obstacle.rmdir()
    assert [processes.started_ticks(pid) for pid in pids] == [None] * 3


async def test_they_are_taken_over_and_looked_after_though_nothing_can_be_written(make: Make, tmp_path: Path) -> None:
    first = make()
    await first.scale(2)
    before = await ids(first)
    pid = pid_of(tmp_path, before[0])
    await first.stop()
    obstacle = nothing_can_be_written(tmp_path)
    second = make()
    assert await ids(second) == before
    os.killpg(pid, signal.SIGKILL)
    await until(lambda: processes.started_ticks(pid) is None, "its end")
    assert await ids(second) == before[1:]
    with pytest.raises(ActuatorError, match=r"cannot be started: .* cannot be written"):
        await second.scale(2)
    assert await ids(second) == before[1:], "nobody runs who could not be found again"
    obstacle.rmdir()


async def test_the_file_is_written_by_the_loop_alone(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers, write = [], Records.write

    def noted(self: Records, records: Any) -> None:
        writers.append(threading.current_thread())
        write(self, records)

    monkeypatch.setattr(Records, "write", noted)
    actuator = make()
    await actuator.scale(2)
    first, second = await ids(actuator)
    pid = pid_of(tmp_path, first)
    os.killpg(pid, signal.SIGKILL)
    await until(lambda: processes.started_ticks(pid) is None, "its end")
    assert await ids(actuator) == [second]
    assert [row["id"] for row in json.loads((tmp_path / "run" / "replicas.json").read_text())["replicas"]] == [second]
    assert set(writers) == {threading.current_thread()}


async def test_whoever_comes_in_the_place_of_one_that_stops_waits_for_its_port(make: Make) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    actuator = make(ports=(port, port))
    await actuator.scale(1)
    [first] = await ids(actuator)
    await actuator.scale(1, leaving=[first])

    async def replaced() -> bool:
        await actuator.scale(1)
        return bool(await ids(actuator))

    await until(replaced, "another at its port")
    assert await ids(actuator) != [first]


async def test_sets_of_gpus_that_have_one_in_common_are_not_given_together(make: Make) -> None:
    actuator = make(
        tiers={"small": EngineKind(SLEEPER, gpus=("0", "1")), "big": EngineKind(SLEEPER, gpus=("1, 2", "2,3"))}
    )
    await actuator.scale(3, tiers={"small": 2, "big": 1})
    assert {one.record.gpus for one in actuator._engines.values()} == {("0",), ("1",), ("2,3",)}
    with pytest.raises(TiersFailed, match="all 2 sets of GPUs are in use"):
        await actuator.scale(4, tiers={"small": 2, "big": 2})
