"""How a loop is ended: told until it heeds."""

import asyncio
from typing import Any

AGAIN_S = 0.5
"""How long a task may take to clean up behind itself before it is told again."""


async def end_tasks(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel `tasks` and wait until they are done, whatever they end with.

    Once is not always enough. Libraries forget a cancellation that comes in the same turn of the loop as what they
    wait for: `asyncio.wait_for` does until Python 3.12, and client libraries may. Their task would go on for ever, and
    whoever waits for its end with it.
    """
    running = {task for task in tasks if task is not None}
    while running:
        for task in running:
            task.cancel()
        done, running = await asyncio.wait(running, timeout=AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # seen: nobody is told of it a second time
