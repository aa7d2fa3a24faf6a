"""Runs the cases of an experiment, one after the other or in processes of their own."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from llmproxy.sim.experiment import Case, Experiment, Replay, replay

_TOLD_EVERY = 200
"""Requests between two reports of progress."""


class RunFailed(Exception):
    """A case could not be run to its end."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """What a worker sends when a policy raised."""

    text: str


def run_all(
    experiment: Experiment, cases: Sequence[Case], workers: int, progress: Callable[[int], None]
) -> list[Replay]:
    """One replay for each case, in their order. `progress` is called with how many more requests have come.

    `workers` processes share the cases; 0 is one a core. Raises `RunFailed` with the words of what a policy raised.
    """
    count = min(workers or _cores(), len(cases))
    if count > 1:
        return _Crew(experiment, cases, progress).run(count)
    replays = []
    for case in cases:
        try:
            replays.append(replay(experiment, case, _telling(progress, len(experiment.trace))))
        except Exception as error:
            raise RunFailed(_words(case, error)) from error
    return replays


def _cores() -> int:
    """Those this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Crew:
    """The parent's side: hands out cases, gathers replays."""

    def __init__(self, experiment: Experiment, cases: Sequence[Case], progress: Callable[[int], None]) -> None:
        self._experiment = experiment
        self._cases = cases
        self._progress = progress
        self._next = 0
        self._at: dict[Connection, int] = {}
        self._replays: dict[int, Replay] = {}

    def run(self, count: int) -> list[Replay]:
        # Not forked: the caller may have threads (a progress bar's).
        context = multiprocessing.get_context("spawn")
        processes: list[SpawnProcess] = []
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, self._experiment), daemon=True)
                process.start()
                theirs.close()
                processes.append(process)
                self._hand_out(ours)
            while self._at:
                for ready in wait(list(self._at)):
                    if isinstance(ready, Connection):
                        self._hear(ready)
        finally:
            for connection in self._at:
                connection.close()
            for process in processes:
                if len(self._replays) < len(self._cases):
                    process.terminate()
                process.join()
        return [self._replays[index] for index in range(len(self._cases))]

    def _hand_out(self, connection: Connection) -> None:
        if self._next == len(self._cases):
            self._at.pop(connection, None)
            connection.close()
            return
        self._at[connection] = self._next
        connection.send(self._cases[self._next])
        self._next += 1

    def _hear(self, connection: Connection) -> None:
        try:
            heard = connection.recv()
        except (EOFError, OSError):
            raise RunFailed("a worker process ended without an answer (out of memory?)") from None
        if isinstance(heard, int):
            self._progress(heard)
        elif isinstance(heard, _Fault):
            raise RunFailed(heard.text)
        else:
            self._replays[self._at[connection]] = heard
            self._hand_out(connection)


def _work(connection: Connection, experiment: Experiment) -> None:
    """The worker's side: cases come, replays and progress go, until the other side hangs up."""
    # Ctrl-C reaches the whole group; the parent ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent may be gone.
    with suppress(EOFError, OSError):
        while True:
            case = connection.recv()
            try:
                found: Replay | _Fault = replay(experiment, case, _telling(connection.send, len(experiment.trace)))
            except Exception as error:
                found = _Fault(_words(case, error))
            connection.send(found)


def _telling(tell: Callable[[int], None], total: int) -> Callable[[int], None]:
    """Passes progress on in steps."""

    def told(come: int) -> None:
        if come % _TOLD_EVERY == 0:
            tell(_TOLD_EVERY)
        elif come == total:
            tell(come % _TOLD_EVERY)

    return told


def _words(case: Case, error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(where.filename)}:{where.lineno}"
    return (
        f"policy {case.policy.name} at load {case.load:g}, seed {case.seed}: {type(error).__name__}: {error} ({place})"
    )
