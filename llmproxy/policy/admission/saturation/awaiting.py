"""Which backends compute prompts: streams sent there that have no first token yet."""

from llmproxy.core.backend import Backend


class Awaiting:
    """Of answers that come whole nobody sees when their prompt has been computed, so they are not among `streams`."""

    __slots__ = ("streams",)

    def __init__(self) -> None:
        self.streams: dict[Backend, int] = {}

    def began(self, backend: Backend) -> None:
        self.streams[backend] = self.streams.get(backend, 0) + 1

    def ended(self, backend: Backend) -> None:
        left = self.streams.get(backend, 0) - 1
        if left > 0:
            self.streams[backend] = left
        else:
            self.streams.pop(backend, None)

    def forget(self, backend: Backend) -> None:
        self.streams.pop(backend, None)
