"""Loops are ended, also those that do not heed the first word."""

import asyncio
import contextlib

import pytest

from llmproxy.control import tasks
from llmproxy.control.tasks import end_tasks


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)


async def test_a_task_that_forgets_a_cancellation_is_told_again() -> None:
    forgotten = 0

    async def forgetful() -> None:
        nonlocal forgotten
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                forgotten += 1
                if forgotten == 3:
                    raise

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    await end_tasks(task)
    assert task.cancelled()
    assert forgotten == 3


async def test_all_are_ended_whatever_they_end_with() -> None:
    async def fails() -> None:
        raise ValueError("of its own")

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

    cleaned: list[bool] = []
    ends = [asyncio.create_task(fails()), asyncio.create_task(cleans_up()), None]
    await asyncio.sleep(0)
    await end_tasks(*ends)
    assert all(task is None or task.done() for task in ends)
    assert cleaned == [True]


async def test_nothing_to_end() -> None:
    await end_tasks()
    await end_tasks(None)


async def test_who_is_cancelled_while_waiting_does_not_wait_on() -> None:
    async def deaf() -> None:
        while not over:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    over = False
    task = asyncio.create_task(deaf())
    ending = asyncio.create_task(end_tasks(task))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert not task.done()
    over = True
    await task
