"""Coroutines driven by hand: straight-line request code without an asyncio task for each request.

A task costs about 5 us of CPU to make, schedule and reap; sending into a coroutine costs a tenth of that.
`Steps` drives one coroutine; the only thing it may await is a `Signal`, which something else sets later.
Setting a signal resumes the coroutine in the same call stack, so whoever sets one must be done with
its own state first. `Steps.cancel` throws at the current await, and `finally` blocks and `with` run at once.
"""

from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Cancelled(BaseException):
    """Thrown into a hand-driven coroutine at its await. Not an Exception, so `except Exception` lets it pass."""


class Signal(Generic[T]):
    """A value that one coroutine waits for. Setting it twice is ignored (the first wins)."""

    __slots__ = ("_error", "_steps", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._steps: Steps | None = None

    def set(self, value: T) -> None:
        """Give the value; the waiting coroutine, if any, runs now."""
        if self.done:
            return
        self.done = True
        self._value = value
        if self._steps is not None:
            self._steps.resume()

    def fail(self, error: BaseException) -> None:
        """Raise `error` at the await."""
        if self.done:
            return
        self.done = True
        self._error = error
        if self._steps is not None:
            self._steps.resume()

    def __await__(self) -> Generator["Signal[T]", None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def hand_to(self, steps: "Steps | None") -> None:
        """Who to resume when the value comes (the driver's business)."""
        self._steps = steps


class Steps:
    """Drives one coroutine. `on_end(error)` is called once, when it returned (None) or raised."""

    __slots__ = ("_cancelled", "_coro", "_next", "_on_end", "_waiting", "ended")

    def __init__(
        self, coro: Coroutine[Signal[Any], None, None], on_end: Callable[[BaseException | None], None]
    ) -> None:
        self._coro = coro
        self._next: Iterator[Signal[Any]] = coro.__await__()
        self._on_end = on_end
        self._waiting: Signal[Any] | None = None
        self._cancelled = False
        self.ended = False

    def resume(self) -> None:
        """Run to the next await (also how it is started)."""
        self._waiting = None
        try:
            # Asked for with a default, the end costs no exception with its traceback.
            waiting = next(self._next, None)
        except BaseException as error:
            self._end(error)
            return
        if waiting is None:
            self._end(None)
        elif self._cancelled:
            self._throw()
        else:
            self._waiting = waiting
            waiting.hand_to(self)

    def cancel(self) -> None:
        """Throw `Cancelled` at the await it stands at; if it is running just now, at its next one."""
        if self.ended:
            return
        self._cancelled = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.hand_to(None)
            self._throw()

    def _throw(self) -> None:
        try:
            waiting = self._coro.throw(Cancelled())
            # It awaits again while cleaning up; nothing may do that, so end it here rather than leak it.
            self._coro.close()
            raise RuntimeError(f"awaited {waiting!r} after it was cancelled")
        except StopIteration:
            self._end(None)
        except BaseException as error:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.ended = True
        self._on_end(None if isinstance(error, Cancelled) else error)
