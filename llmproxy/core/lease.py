"""A lease: a request's place on a backend, held until its *stream* ends, given back on every path out."""

from collections.abc import Callable
from types import TracebackType

from llmproxy.core.backend import Backend


class Lease:
    """`with Lease(backend, on_free):` counts one in-flight request; `on_free` runs after it is given back.
    Two leases that are held may exchange their backends."""

    __slots__ = ("backend", "on_free")

    def __init__(self, backend: Backend, on_free: Callable[[], None]) -> None:
        self.backend = backend
        self.on_free = on_free

    def __enter__(self) -> Backend:
        self.backend.load.enter()
        return self.backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.backend.load.leave()
        self.on_free()
