"""The end of a loop whose pool is scaled no more: what runs there finishes before the actuator may end the replicas."""

import asyncio

from llmproxy.control.scaling.pool_scaler import PoolScaler
from llmproxy.control.tasks import end_tasks
from llmproxy.core.clock import Clock


class Retirement:
    """Of a loop that was halted. It takes as long as requests run there, and at most a drain."""

    def __init__(self, scaler: PoolScaler, clock: Clock) -> None:
        self._scaler = scaler
        self._clock = clock
        self._hurry = asyncio.Event()
        self._waits = True
        self._task = asyncio.create_task(self._run(), name=f"retire {scaler.parts.pool.name}")

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def end(self) -> None:
        """Wait for nobody any more."""
        self._hurry.set()
        await self._task

    async def taken_back(self) -> PoolScaler | None:
        """The loop, to be started again; None when its actuator has been told to end. Then it has by now."""
        if not self._waits:
            await self._task
            return None
        await end_tasks(self._task)
        return self._scaler

    async def _run(self) -> None:
        parts = self._scaler.parts
        until = self._clock() + parts.lives.terms.drain_s
        while self._clock() < until and not self._hurry.is_set():
            if not any(one.backend and one.backend.load.in_flight for one in parts.fleet.replicas.values()):
                break
            await asyncio.sleep(self._scaler.pace.look_s)
        self._waits = False
        await self._scaler.stop()
