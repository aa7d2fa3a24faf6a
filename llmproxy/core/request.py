"""A request as decisions see it: no sockets, no bytes to copy."""

from collections.abc import Callable, Sequence

Headers = Sequence[tuple[bytes, bytes]]


def _no_field(name: str) -> str | None:
    return None


class Request:
    """One client request. `field` looks a top-level JSON body field up (strings and numbers, as text)."""

    __slots__ = ("arrived", "body_bytes", "client_ip", "field", "headers", "id", "method", "model", "path", "stream")

    def __init__(
        self,
        *,
        id: str = "",
        method: str = "POST",
        path: str = "/v1/chat/completions",
        model: str | None = None,
        stream: bool = False,
        client_ip: str = "",
        headers: Headers = (),
        body_bytes: int = 0,
        arrived: float = 0.0,
        field: Callable[[str], str | None] = _no_field,
    ) -> None:
        self.id = id
        self.method = method
        self.path = path
        self.model = model
        self.stream = stream
        self.client_ip = client_ip
        self.headers = headers
        self.body_bytes = body_bytes
        self.arrived = arrived
        self.field = field

    def header(self, name: str) -> str | None:
        """The first value of header `name` (any case), or None."""
        wanted = name.lower().encode("latin-1")
        for key, value in self.headers:
            if len(key) == len(wanted) and key.lower() == wanted:
                return value.strip().decode("latin-1")
        return None

    def cookie(self, name: str) -> str | None:
        """The value of cookie `name`, or None."""
        for part in (self.header("cookie") or "").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return None
