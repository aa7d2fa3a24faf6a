"""Which backends compute prompts: requests sent there that have no first token yet."""

from llmproxy.core.backend import Backend


class Awaiting:
    """`streams` await a first token, which will be seen. `wholes` are answers that come whole: nobody sees when their
    prompt has been computed, so while there are any the backend's backlog is unknown."""

    __slots__ = ("streams", "wholes")

    def __init__(self) -> None:
        self.streams: dict[Backend, int] = {}
        self.wholes: dict[Backend, int] = {}

    def began(self, backend: Backend, stream: bool) -> None:
        counts = self.streams if stream else self.wholes
        counts[backend] = counts.get(backend, 0) + 1

    def ended(self, backend: Backend, stream: bool) -> None:
        counts = self.streams if stream else self.wholes
        left = counts.get(backend, 0) - 1
        if left > 0:
            counts[backend] = left
        else:
            counts.pop(backend, None)

    def forget(self, backend: Backend) -> None:
        self.streams.pop(backend, None)
        self.wholes.pop(backend, None)
