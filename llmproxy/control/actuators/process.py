"""`{kind: process}`: engines as processes of this machine.

    actuator:
      kind: process
      command: "vllm serve Qwen/Qwen3-8B --port {port}"
      gpus: ["0", "1", "2,3"]        # one set an engine, as CUDA_VISIBLE_DEVICES

Each engine is started without a shell, in a session and process group of its own, with its output appended to a log
whose size is bounded. It outlives the proxy unless `on_exit: stop`: the next one finds it by the state file (and by
the mark in its environment, should the file have been written a moment too early) and goes on with it, or ends it when
the command has changed since. Ending is SIGTERM to the group, and SIGKILL after `stop_timeout`.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from llmproxy.control.actuators import processes
from llmproxy.control.actuators.base import ActuatorError, Instance, TiersFailed
from llmproxy.control.actuators.engine_kinds import EngineKind, ProcessOptions, free_gpus, free_port, is_full
from llmproxy.control.actuators.logs import Logs, last_words, trim_log
from llmproxy.control.actuators.records import Record, Records

MARK: Final = "LLMPROXY_REPLICA"
_LOOK_EVERY_S: Final = 0.05
_GONE_WITHIN_S: Final = 5.0
"""After SIGKILL; a process in an uninterruptible call may take longer, and is looked after all the same."""
_REAP_S: Final = 1.0
"""How long the end of a process that was killed is waited for."""

_log = logging.getLogger("llmproxy.control.actuators")


@dataclass(slots=True, eq=False)
class _Engine:
    record: Record
    child: "subprocess.Popen[bytes] | None" = None
    """None of an adopted one."""
    stopping: "asyncio.Task[None] | None" = None
    starting: "asyncio.Task[None] | None" = None
    """Until its number is known. Whoever asked for it may be gone before that."""
    listed: bool = False
    """It was named once. One that ends before is named all the same, so that its failing is seen."""


class ProcessActuator:
    """Engines of one pool on this machine."""

    def __init__(self, pool: str, options: ProcessOptions, *, wall: Callable[[], float] = time.time) -> None:
        self._pool = pool
        self._options = options
        self._wall = wall
        self._records = Records(options.directory)
        self._logs = Logs(options.directory / "logs")
        self._engines: dict[str, _Engine] = {}
        self._started = False

    # -- the interface ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        if not self._started:
            await asyncio.to_thread(self._records.lock)
            try:
                for record in await asyncio.to_thread(self._records.read):
                    await self._adopt(record)
                self._tidy()
            except BaseException:
                self._records.unlock()
                raise
            self._started = True

    async def stop(self) -> None:
        if not self._started:
            return
        self._started = False
        await asyncio.gather(*map(_has_begun, list(self._engines.values())))
        if self._options.on_exit_stop:
            for engine in self._engines.values():
                self._begin_stop(engine, "its pool, or the proxy, ends")
            await asyncio.gather(*(engine.stopping for engine in self._engines.values() if engine.stopping is not None))
        else:
            for engine in self._engines.values():
                if engine.stopping is not None:
                    engine.stopping.cancel()
                if engine.child is not None:
                    # It goes on without us, on purpose: not what Popen's destructor warns about.
                    engine.child.returncode = engine.child.returncode or 0
            kept = [engine.record.id for engine in self._engines.values()]
            if kept:
                text = "pool %s: %s go on running; whoever scales this pool next takes them over"
                _log.info(text, self._pool, ", ".join(kept))
        self._engines.clear()
        self._records.unlock()

    async def replicas(self) -> Sequence[Instance]:
        await self.start()
        await self._tend()
        now = self._wall()
        for engine in self._engines.values():
            engine.listed = True
        return [
            Instance(
                engine.record.id,
                f"http://{self._options.host}:{engine.record.port}",
                engine.stopping is not None,
                max(now - engine.record.started_unix_s, 0.0),
                engine.record.tier,
            )
            for engine in self._engines.values()
        ]

    async def scale(
        self, count: int, *, leaving: Sequence[str] = (), fence: int = 0, tiers: Mapping[str, int] | None = None
    ) -> None:
        await self.start()
        await self._tend()
        for id in leaving:
            if id in self._engines:
                self._begin_stop(self._engines[id], "drained, or given up")
        if tiers is None:
            await self._bring_to("", count)
            return
        failed: dict[str, ActuatorError] = {}
        for tier, wanted in tiers.items():
            try:
                await self._bring_to(tier, wanted)
            except ActuatorError as error:
                failed[tier] = error
        if failed:
            raise TiersFailed("; ".join(map(str, failed.values())), tuple(failed))

    async def _bring_to(self, tier: str, count: int) -> None:
        """So many of one tier."""
        kind = self._options.kind(tier)
        if kind is None:
            raise ActuatorError(f"there is no tier of capacity {tier!r}")
        running = [one for one in self._engines.values() if one.stopping is None and one.record.tier == tier]
        youngest = sorted(running, key=lambda engine: engine.record.started_unix_s, reverse=True)
        for engine in youngest[: max(len(running) - count, 0)]:
            self._begin_stop(engine, "no longer wanted")
        for _ in range(count - len(running)):
            if not self._room_comes_free(kind):
                await self._start_one(tier, kind)

    # -- starting --------------------------------------------------------------------------------------------------

    async def _start_one(self, tier: str, kind: EngineKind) -> None:
        gpus = free_gpus(kind, self._taken_gpus)
        port = free_port(self._options, self._taken_ports)
        id = f"{self._pool}-{secrets.token_hex(3)}"
        mark, digest = secrets.token_hex(16), self._options.digest(kind)
        engine = self._engines[id] = _Engine(Record(id, mark, port, gpus, digest, self._wall(), tier=tier))
        engine.starting = asyncio.create_task(self._begin(engine, kind), name=f"start {id}")
        # A call that is given up must not leave behind a process that nobody knows.
        await asyncio.shield(engine.starting)

    async def _begin(self, engine: _Engine, kind: EngineKind) -> None:
        record, id = engine.record, engine.record.id
        try:
            # First, so that there is no moment in which an engine runs that nobody could find again.
            self._save()
            engine.child = await asyncio.to_thread(self._spawn, record, kind)
        except (OSError, ActuatorError) as error:
            self._engines.pop(id, None)
            self._tidy()
            why = error.strerror if isinstance(error, OSError) else error
            raise ActuatorError(f"{shlex.split(kind.command)[0]} cannot be started: {why}") from None
        engine.record = replace(record, pid=engine.child.pid, ticks=processes.started_ticks(engine.child.pid) or 0)
        self._tidy()
        where = f" on GPU {record.gpus[0]}" if record.gpus else ""
        _log.info("pool %s: started %s (process %d) at port %d%s", self._pool, id, engine.child.pid, record.port, where)

    def _spawn(self, record: Record, kind: EngineKind) -> "subprocess.Popen[bytes]":
        gpus = record.gpus[0] if record.gpus else ""
        env = {**os.environ, **self._options.env, **kind.env, MARK: record.mark}
        if record.gpus:
            env["CUDA_VISIBLE_DEVICES"] = gpus
        with self._logs.begin(record.id, list(self._engines)).open("ab") as out:
            return subprocess.Popen(  # noqa: S603 (the operator's own command, without a shell)
                kind.arguments(port=str(record.port), id=record.id, gpus=gpus, tier=record.tier),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    def _room_comes_free(self, kind: EngineKind) -> bool:
        """Whether no GPU or no port is free, but will be when those that are stopping have ended: then it will be asked
        again."""
        stopping = any(engine.stopping is not None for engine in self._engines.values())
        return stopping and is_full(self._options, kind, self._taken_gpus, self._taken_ports)

    @property
    def _taken_gpus(self) -> set[str]:
        return {gpus for engine in self._engines.values() for gpus in engine.record.gpus}

    @property
    def _taken_ports(self) -> set[int]:
        return {engine.record.port for engine in self._engines.values()}

    # -- those that run --------------------------------------------------------------------------------------------

    async def _adopt(self, record: Record) -> None:
        """An engine that an earlier proxy started."""
        if not record.pid:
            pid = await asyncio.to_thread(processes.marked, MARK, record.mark)
            record = replace(record, pid=pid or 0, ticks=(processes.started_ticks(pid) or 0) if pid else 0)
        if not processes.is_same(record.pid, record.ticks):
            return
        engine = self._engines[record.id] = _Engine(record)
        kind = self._options.kind(record.tier)
        if kind is None or record.command != self._options.digest(kind):
            self._begin_stop(engine, "it was started with another command")
        else:
            _log.info("pool %s: took over %s (process %d)", self._pool, record.id, record.pid)

    async def _tend(self) -> None:
        """Notice who has ended, and keep the logs short."""
        engines = list(self._engines.values())
        ended = await asyncio.to_thread(self._look_after, engines)
        for engine in ended:
            self._engines.pop(engine.record.id, None)
        if ended:
            self._tidy()

    def _look_after(self, engines: Sequence[_Engine]) -> list[_Engine]:
        """Who of them has ended. In a thread: who there is, and the file that says so, are the loop's alone."""
        known = [engine for engine in engines if engine.stopping is None and engine.listed]
        ended = [engine for engine in known if not self._lives(engine)]
        for engine in ended:
            record = engine.record
            # What it started itself must not keep the GPU.
            processes.signal_group(record.pid, signal.SIGKILL)
            if engine.child is not None:
                # It may have ended between two looks at it: without this it stays a zombie.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    engine.child.wait(_REAP_S)
            status = "" if engine.child is None else f" with status {engine.child.returncode}"
            words = last_words(self._logs.of(record.id))
            _log.warning(
                "pool %s: %s (process %d) ended by itself%s; it last said: %s",
                self._pool,
                record.id,
                record.pid,
                status,
                words or "nothing",
            )
        for engine in engines:
            trim_log(self._logs.of(engine.record.id), self._options.log_max_bytes)
        return ended

    def _lives(self, engine: _Engine) -> bool:
        if engine.child is not None and engine.child.poll() is not None:
            return False
        record = engine.record
        return not record.pid or processes.is_same(record.pid, record.ticks)

    # -- ending ----------------------------------------------------------------------------------------------------

    def _begin_stop(self, engine: _Engine, why: str) -> None:
        if engine.stopping is None:
            _log.info("pool %s: stopping %s: %s", self._pool, engine.record.id, why)
            engine.stopping = asyncio.create_task(self._end(engine), name=f"stop {engine.record.id}")

    async def _end(self, engine: _Engine) -> None:
        await _has_begun(engine)
        if engine.record.id not in self._engines:
            return
        group = engine.record.pid
        processes.signal_group(group, signal.SIGTERM)
        if not await self._ended_within(engine, self._options.stop_timeout_s):
            _log.warning("pool %s: %s ignores SIGTERM: killed", self._pool, engine.record.id)
        # Also when its leader has ended in time: whatever is left of the group goes with it.
        processes.signal_group(group, signal.SIGKILL)
        if not await self._ended_within(engine, _GONE_WITHIN_S):
            _log.error("pool %s: %s (process %d) cannot be killed", self._pool, engine.record.id, group)
        self._engines.pop(engine.record.id, None)
        self._tidy()

    async def _ended_within(self, engine: _Engine, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._lives(engine):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_LOOK_EVERY_S)
        if engine.child is not None:
            # It may have ended between two looks at it: without this it stays a zombie.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(engine.child.wait, _REAP_S)
        return True

    # -- the folder ------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._records.write(engine.record for engine in self._engines.values())

    def _tidy(self) -> None:
        """Save what nothing depends on: the next proxy sees for itself who of those in the file has ended, and finds by
        its mark whose number is missing."""
        try:
            self._save()
        except ActuatorError as error:
            _log.warning("pool %s: %s", self._pool, error)


async def _has_begun(engine: _Engine) -> None:
    """Returns when its number is known, or that it has none."""
    if engine.starting is not None:
        await asyncio.wait({engine.starting})
