"""What goes on with single replicas beside the loop: one task at a time for each."""

import asyncio
import logging
from collections.abc import Coroutine

from llmproxy.control.scaling.fleet import Replica
from llmproxy.control.tasks import end_tasks

_log = logging.getLogger("llmproxy.control.scaling")


class Errands:
    """Of one pool."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._tasks: dict[Replica, asyncio.Task[None]] = {}

    def __contains__(self, replica: Replica) -> bool:
        return replica in self._tasks

    def begin(self, replica: Replica, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(errand, name=f"replica {replica.id}")
        self._tasks[replica] = task
        task.add_done_callback(lambda done: self._ended(replica, done))

    def end(self, replica: Replica) -> None:
        """Whatever it is at, no more of it."""
        task = self._tasks.pop(replica, None)
        if task is not None:
            task.cancel()

    def let_go(self, replica: Replica) -> None:
        """What it is at is as good as over: another may begin."""
        self._tasks.pop(replica, None)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        await end_tasks(*tasks)

    def _ended(self, replica: Replica, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(replica) is task:
            del self._tasks[replica]
        if not task.cancelled() and task.exception() is not None:
            _log.error("pool %s: replica %s: a task failed", self._pool, replica.id, exc_info=task.exception())
