"""A request as the emulated server received it."""

from collections.abc import Sequence
from urllib.parse import unquote_to_bytes


class Incoming:
    """Method, decoded path, headers (names in lower case, in order) and the whole body."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "query", "target", "version")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        version: str = "1.1",
        keep_alive: bool = True,
    ) -> None:
        self.method = method
        self.target = target
        path, _, self.query = target.partition("?")
        self.path = unquote_to_bytes(path).decode("utf-8", "replace") if "%" in path else path
        self.headers = headers
        self.body = body
        self.version = version
        self.keep_alive = keep_alive

    def header(self, name: str) -> str | None:
        """The first value of header `name` (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
