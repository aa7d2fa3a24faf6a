"""Prompt tokens that were sent to a backend and are not yet answered by a first token, as a router can count them."""

from llmproxy.core.backend import Backend
from llmproxy.core.ports import Moment
from llmproxy.core.request import Request


class _Note:
    """On a request: what was expected of it, and where it awaits its first token."""

    __slots__ = ("awaits", "tokens")

    def __init__(self, tokens: float) -> None:
        self.tokens = tokens
        self.awaits: Backend | None = None


class Pending:
    """`of(backend)` in tokens. `expect` notes them on the request, `observe` counts them from SENT to the first
    token, the end or the failure."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens: dict[Backend, float] = {}

    def of(self, backend: Backend) -> float:
        return self._tokens.get(backend, 0.0)

    def expect(self, request: Request, tokens: float) -> None:
        request.note = _Note(tokens)

    def observe(self, moment: Moment, backend: Backend, request: Request) -> None:
        note = request.note
        if not isinstance(note, _Note):
            return
        if moment is Moment.SENT:
            note.awaits = backend
            self._tokens[backend] = self.of(backend) + note.tokens
        elif note.awaits is backend:
            note.awaits = None
            if backend in self._tokens:
                self._tokens[backend] = max(self._tokens[backend] - note.tokens, 0.0)

    def forget(self, backend: Backend) -> None:
        self._tokens.pop(backend, None)
