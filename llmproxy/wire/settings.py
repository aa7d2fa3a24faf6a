"""Bounds for client connections."""


class ConnectionSettings:
    """In seconds and bytes; replaced whole on reload."""

    __slots__ = ("body_s", "header_bytes", "header_s", "keepalive_s", "request_line_bytes", "write_s")

    def __init__(
        self,
        header_s: float = 10.0,
        body_s: float = 60.0,
        keepalive_s: float = 75.0,
        write_s: float = 60.0,
        header_bytes: int = 65536,
        request_line_bytes: int = 16384,
    ) -> None:
        self.header_s = header_s
        self.body_s = body_s
        self.keepalive_s = keepalive_s
        self.write_s = write_s
        self.header_bytes = header_bytes
        self.request_line_bytes = request_line_bytes
