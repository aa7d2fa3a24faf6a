"""Waiting for conditions instead of for time."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> Any:
    """Poll `condition` (plain or async) until it is true, and return what it gave. Fails, naming `what`, when it does
    not come true in time. An AssertionError inside counts as not yet, and is shown when time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        failure: AssertionError | None = None
        found: Any = None
        try:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
        except AssertionError as error:
            failure = error
        if found:
            return found
        if loop.time() >= deadline:
            raise AssertionError(f"never came within {timeout_s:g} s: {what}") from failure
        await asyncio.sleep(0.003)
